use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::client_address::is_trusted;
use super::{TrustedProxy, proxy_protocol};
use tidegate_core::error_chain::chain;
use tidegate_core::limits::ThrottleLevel;
use tidegate_core::limits::{Admission, Slot};
use tidegate_core::request_context::ClientCert;
use tidegate_gateway::data_plane::DataPlane;
use tidegate_http::tls::{self, ServerTls};
use tidegate_telemetry::StageLabels;

/// The steps of a connection before its first request: PROXY header, limits of its address, TLS.
#[derive(Debug, Default)]
pub struct ConnectionPolicy {
    pub tls: Option<Arc<ServerTls>>,
    /// True if every connection must begin with a PROXY header and come from one of `trusted_proxies`.
    pub proxy_protocol: bool,
    pub trusted_proxies: Vec<TrustedProxy>,
    /// True if connections count towards the limits of their address. On the internal listener they do not, so a
    /// backend may open any number.
    pub is_counted: bool,
}

/// The two ends of a connection, as far as they are known.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The other end of the connection, or the client that a PROXY header names.
    pub(super) remote: SocketAddr,
    /// The address that the other end connected to.
    pub(super) local: SocketAddr,
    /// True if the other end spoke TLS to this gateway, or to the load balancer in front of it.
    pub(super) secure: bool,
    /// True if the connection counts towards the limits of its address.
    pub(super) is_counted: bool,
    /// True if the address has as many connections as it may: every request is refused.
    pub(super) is_over: bool,
    pub(super) client_cert: Option<Arc<ClientCert>>,
}

/// A connection that may send requests.
pub(super) struct AcceptedConnection {
    pub(super) peer: Peer,
    /// The place among the handshakes of the address, kept until the first request.
    pub(super) handshake: Option<Slot>,
    /// The place among the connections of the address, kept until the connection ends.
    pub(super) connection: Option<Slot>,
}

/// The stream of a connection that may send requests.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Peer {
    /// Returns the ends of a socket, before anything was read from it.
    pub(super) fn new(remote: SocketAddr, local: SocketAddr) -> Self {
        Peer { remote, local, secure: false, is_counted: false, is_over: false, client_cert: None }
    }
}

impl ConnectionPolicy {
    /// Returns true if nothing is read before the first request.
    pub(super) fn is_plain(&self) -> bool {
        self.tls.is_none() && !self.proxy_protocol
    }

    /// Does the steps before the first request. Returns `None` if the connection must be closed. The caller bounds the
    /// time.
    pub(super) async fn enter(
        &self,
        plane: &DataPlane,
        mut stream: TcpStream,
        mut peer: Peer,
    ) -> Option<(Stream, AcceptedConnection)> {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection was lost before it began");
            return None;
        }
        if self.proxy_protocol {
            peer = self.read_proxy_header(&mut stream, peer).await?;
        }
        let mut entered = self.admit(plane, peer)?;
        let Some(tls) = &self.tls else { return Some((Stream::Plain(stream), entered)) };
        // If the caller's time runs out meanwhile, the outcome stays `timeout`.
        let mut handshake = TlsHandshake { plane, outcome: "timeout" };
        let accepted = tls.accept(stream).await;
        handshake.outcome = if accepted.is_ok() { "ok" } else { "failed" };
        drop(handshake);
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%error, remote = %entered.peer.remote, "a TLS handshake failed");
                return None;
            }
        };
        entered.peer.secure = true;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        entered.peer.client_cert = certificate.and_then(tls::client_cert).map(Arc::new);
        Some((Stream::Tls(Box::new(stream)), entered))
    }

    async fn read_proxy_header(&self, stream: &mut TcpStream, peer: Peer) -> Option<Peer> {
        if !is_trusted(peer.remote.ip().to_canonical(), &self.trusted_proxies) {
            warn!(remote = %peer.remote, "closed a connection: the listener requires PROXY headers, and the sender is not one of `trustedProxies`");
            return None;
        }
        match proxy_protocol::read(stream).await {
            Ok(header) => {
                let (remote, local) = header.addresses.unwrap_or((peer.remote, peer.local));
                Some(Peer { remote, local, secure: header.secure, ..peer })
            }
            Err(error) => {
                warn!(remote = %peer.remote, error = %chain(&error), "closed a connection: the trusted proxy did not send a valid PROXY header");
                None
            }
        }
    }

    /// Counts a connection for its address. Returns `None` if it must be closed without an answer. A trusted proxy is
    /// not counted, because it has the connections of many clients.
    pub(super) fn admit(&self, plane: &DataPlane, mut peer: Peer) -> Option<AcceptedConnection> {
        let ip = peer.remote.ip().to_canonical();
        if !self.is_counted || is_trusted(ip, &self.trusted_proxies) {
            return Some(AcceptedConnection { peer, handshake: None, connection: None });
        }
        peer.is_counted = true;
        match plane.addresses.accept(ip, &plane.live().settings.limits.per_address) {
            Admission::Admitted { handshake, connection } => Some(AcceptedConnection { peer, handshake, connection }),
            Admission::Over { handshake } => {
                peer.is_over = true;
                Some(AcceptedConnection { peer, handshake, connection: None })
            }
            Admission::Refused => {
                plane.telemetry.metrics.throttled(&no_stage(), ThrottleLevel::Handshakes);
                None
            }
        }
    }
}

/// A guard that counts a TLS handshake when it is over, whatever ends it.
struct TlsHandshake<'a> {
    plane: &'a DataPlane,
    outcome: &'static str,
}

impl Drop for TlsHandshake<'_> {
    fn drop(&mut self) {
        self.plane.telemetry.metrics.tls_handshake(self.outcome);
    }
}

/// Returns the labels of events for which no stage is known yet.
pub(super) fn no_stage() -> StageLabels {
    StageLabels { api_id: "-".into(), stage: "-".into() }
}
