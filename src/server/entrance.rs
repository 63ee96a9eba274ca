use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::client_address::is_trusted;
use super::{TrustedProxy, proxy_protocol};
use crate::data_plane::DataPlane;
use crate::error_chain::chain;
use crate::limits::ThrottleLevel;
use crate::limits::{Admission, Slot};
use crate::request_context::ClientCert;
use crate::telemetry::StageLabels;
use crate::tls::{self, ServerTls};

/// What a connection of a listener goes through before its first request: PROXY header, limits of its address, TLS.
#[derive(Debug, Default)]
pub struct Entrance {
    pub tls: Option<Arc<ServerTls>>,
    /// Every connection begins with a PROXY header, and comes from one of `trusted_proxies`.
    pub proxy_protocol: bool,
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Connections count for their address. A backend may have as many to the internal listener as it likes.
    pub is_counted: bool,
}

/// Both ends of a connection, as far as they are known.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The other end of the connection, or who it says that it stands for.
    pub(super) remote: SocketAddr,
    /// Where that one connected to.
    pub(super) local: SocketAddr,
    /// It spoke TLS to this gateway, or to the balancer before it.
    pub(super) secure: bool,
    /// The connection counts for this address.
    pub(super) is_counted: bool,
    /// The address has as many connections as it may: every request is refused.
    pub(super) is_over: bool,
    pub(super) client_cert: Option<Arc<ClientCert>>,
}

/// A connection that may ask.
pub(super) struct Entered {
    pub(super) peer: Peer,
    /// Kept until it asks.
    pub(super) handshake: Option<Slot>,
    /// Kept until it is gone.
    pub(super) connection: Option<Slot>,
}

/// What it asks on.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Peer {
    /// The ends of a socket.
    pub(super) fn new(remote: SocketAddr, local: SocketAddr) -> Self {
        Peer { remote, local, secure: false, is_counted: false, is_over: false, client_cert: None }
    }
}

impl Entrance {
    /// Whether nothing is read before the first request.
    pub(super) fn is_plain(&self) -> bool {
        self.tls.is_none() && !self.proxy_protocol
    }

    /// Reads what comes before the first request. `None` if the connection ends here. The caller bounds the time.
    pub(super) async fn enter(
        &self,
        plane: &DataPlane,
        mut stream: TcpStream,
        mut peer: Peer,
    ) -> Option<(Stream, Entered)> {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection was lost before it began");
            return None;
        }
        if self.proxy_protocol {
            peer = self.read_proxy_header(&mut stream, peer).await?;
        }
        let mut entered = self.admit(plane, peer)?;
        let Some(tls) = &self.tls else { return Some((Stream::Plain(stream), entered)) };
        // Whoever gives up in the middle leaves it at that.
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
            warn!(remote = %peer.remote, "refused: the listener takes PROXY headers, and this is no trusted proxy");
            return None;
        }
        match proxy_protocol::read(stream).await {
            Ok(header) => {
                let (remote, local) = header.addresses.unwrap_or((peer.remote, peer.local));
                Some(Peer { remote, local, secure: header.secure, ..peer })
            }
            Err(error) => {
                warn!(remote = %peer.remote, error = %chain(&error), "refused: a trusted proxy sent no PROXY header");
                None
            }
        }
    }

    /// Counts a connection for its address. `None` if it is closed without a word. A trusted proxy is not counted: it
    /// has the connections of many.
    pub(super) fn admit(&self, plane: &DataPlane, mut peer: Peer) -> Option<Entered> {
        let ip = peer.remote.ip().to_canonical();
        if !self.is_counted || is_trusted(ip, &self.trusted_proxies) {
            return Some(Entered { peer, handshake: None, connection: None });
        }
        peer.is_counted = true;
        match plane.addresses.accept(ip, &plane.live().settings.limits.per_address) {
            Admission::Admitted { handshake, connection } => Some(Entered { peer, handshake, connection }),
            Admission::Over { handshake } => {
                peer.is_over = true;
                Some(Entered { peer, handshake, connection: None })
            }
            Admission::Refused => {
                plane.metrics.throttled(&no_stage(), ThrottleLevel::Handshakes);
                None
            }
        }
    }
}

/// Counts a TLS handshake when it is over, whatever ends it.
struct TlsHandshake<'a> {
    plane: &'a DataPlane,
    outcome: &'static str,
}

impl Drop for TlsHandshake<'_> {
    fn drop(&mut self) {
        self.plane.metrics.tls_handshake(self.outcome);
    }
}

/// The labels of what happens before it is known which stage it is for.
pub(super) fn no_stage() -> StageLabels {
    StageLabels { api_id: "-".into(), stage: "-".into() }
}
