use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::accepting::{Accepting, Shortage};
use super::entrance::{AcceptedConnection, ConnectionPolicy, Peer, Stream};
use super::http_connection::serve_http;
use super::{AllowedHosts, ConnectionsApi, TrustedProxy};
use tidegate_core::limits::{ClientFile, ClientFiles};
use tidegate_gateway::data_plane::DataPlane;
use tidegate_gateway::data_plane::websocket::serve;
use tidegate_http::transport::Connection;
use tidegate_operator_api::Readiness;

/// Most connections that the kernel holds until they are accepted: enough for a storm of reconnects.
const BACKLOG: i32 = 4096;

/// Pause after a failure to accept, which happens when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The purpose of a listener, with the rules for its requests.
#[derive(Debug)]
pub enum Endpoint {
    /// Serves clients, and backends' `@connections` calls.
    Public { connections_api: ConnectionsApi, trusted_proxies: Vec<TrustedProxy>, hosts: AllowedHosts },
    /// Serves operators, and backends' `@connections` calls.
    Internal { connections_api: ConnectionsApi, readiness: Readiness, hosts: AllowedHosts },
}

impl Endpoint {
    pub(super) fn connections_api(&self) -> ConnectionsApi {
        match self {
            Endpoint::Public { connections_api, .. } | Endpoint::Internal { connections_api, .. } => *connections_api,
        }
    }

    /// Returns the name of the listener in logs and metrics.
    fn name(&self) -> &'static str {
        match self {
            Endpoint::Public { .. } => "public",
            Endpoint::Internal { .. } => "internal",
        }
    }

    /// Returns true if requests for `host` are answered.
    pub(super) fn allows(&self, host: &str) -> bool {
        let (Endpoint::Public { hosts, .. } | Endpoint::Internal { hosts, .. }) = self;
        hosts.allow(host)
    }
}

/// A listening socket that does not accept connections yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    entrance: Arc<ConnectionPolicy>,
}

/// The error for an address on which the gateway cannot listen.
#[derive(Debug, Error)]
#[error("could not listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl Listener {
    /// Binds `address` and listens on it. Must be called within the runtime.
    ///
    /// # Errors
    /// Returns [`BindError`] if the address is in use, does not belong to this machine, or is not permitted.
    pub fn bind(address: SocketAddr, entrance: Arc<ConnectionPolicy>) -> Result<Self, BindError> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from_std(socket.into())?;
            let address = socket.local_addr()?;
            Ok(Listener { socket, address, entrance })
        };
        bind().map_err(|source| BindError { address, source })
    }

    /// Returns the bound address, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until `stop`, and serves each one in its own task.
    pub async fn serve(self, plane: Arc<DataPlane>, endpoint: Arc<Endpoint>, stop: CancellationToken) {
        let entrance = Arc::clone(&self.entrance);
        let files = match *endpoint {
            Endpoint::Public { .. } => Some(ClientFiles::of_process()),
            Endpoint::Internal { .. } => None,
        };
        let accepting = Accepting::new(endpoint.name(), plane.telemetry.metrics.accept_gauge());
        let start = |stream, peer, file| {
            let (plane, endpoint, entrance) = (Arc::clone(&plane), Arc::clone(&endpoint), Arc::clone(&entrance));
            let tasks = plane.lifecycle.clone();
            if entrance.is_plain() {
                tasks.spawn(serve_plain(plane, endpoint, entrance, stream, peer, file));
            } else {
                tasks.spawn(serve_guarded(plane, endpoint, entrance, stream, peer, file));
            }
        };
        self.accept(stop, files, accepting, start).await;
    }

    /// Returns the address that the other end of `stream` connected to. Only a listener on all addresses has to ask the
    /// kernel for it.
    fn local_address(&self, stream: &TcpStream) -> SocketAddr {
        match self.address.ip().is_unspecified() {
            true => stream.local_addr().unwrap_or(self.address),
            false => self.address,
        }
    }

    /// Accepts connections until `stop` and passes each one to `start`, which must not wait. While `files` has no free
    /// file, new connections wait in the kernel.
    pub(super) async fn accept(
        self,
        stop: CancellationToken,
        files: Option<ClientFiles>,
        mut accepting: Accepting,
        start: impl Fn(TcpStream, Peer, Option<ClientFile>),
    ) {
        loop {
            let file = match &files {
                None => None,
                Some(files) => match stop.run_until_cancelled(take(files, &mut accepting)).await {
                    Some(file) => Some(file),
                    None => return,
                },
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
                () = accepting.calm() => {
                    accepting.is_over();
                    continue;
                }
            };
            match accepted {
                Ok((stream, remote)) => {
                    let local = self.local_address(&stream);
                    start(stream, Peer::new(remote, local), file);
                }
                Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection was lost before it began"),
                Err(error) => {
                    accepting.cannot(&Shortage::Failed(&error));
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Takes a file for the next client. Reports to `accepting` while there is none.
async fn take(files: &ClientFiles, accepting: &mut Accepting) -> ClientFile {
    if let Some(file) = files.try_take() {
        return file;
    }
    loop {
        accepting.cannot(&Shortage::ClientFiles { max: files.max() });
        if let Ok(file) = timeout_at(accepting.repeat_at(), files.take()).await {
            accepting.can();
            return file;
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection of a client or a backend: its requests one after the other, then the session if it is
/// upgraded.
async fn serve_plain(
    plane: Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    entrance: Arc<ConnectionPolicy>,
    stream: TcpStream,
    peer: Peer,
    file: Option<ClientFile>,
) {
    let Some(entered) = entrance.admit(&plane, peer) else { return };
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(%error, "a connection was lost before it began");
    }
    drop(entrance);
    serve_stream(plane, endpoint, stream, entered, file).await;
}

/// Does the same as [`serve_plain`], for a connection that begins with a PROXY header or a TLS handshake. Both must
/// finish within the handshake timeout, and their memory is freed before a session begins.
async fn serve_guarded(
    plane: Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    entrance: Arc<ConnectionPolicy>,
    stream: TcpStream,
    peer: Peer,
    file: Option<ClientFile>,
) {
    let handshake_timeout = plane.live().settings.limits.handshake_timeout();
    let entering = timeout(handshake_timeout, Box::pin(entrance.enter(&plane, stream, peer)));
    let entered = tokio::select! {
        biased;
        () = plane.lifecycle.aborting().cancelled() => return,
        entered = entering => entered,
    };
    drop(entrance);
    match entered {
        Ok(Some((Stream::Tls(stream), entered))) => serve_stream(plane, endpoint, *stream, entered, file).await,
        Ok(Some((Stream::Plain(stream), entered))) => serve_stream(plane, endpoint, stream, entered, file).await,
        Ok(None) => {}
        Err(_elapsed) => debug!("closed a connection: the client did not finish its handshake in time"),
    }
}

async fn serve_stream<S>(
    plane: Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    stream: S,
    entered: AcceptedConnection,
    file: Option<ClientFile>,
) where
    S: Connection + Send + 'static,
{
    let AcceptedConnection { peer, handshake, connection } = entered;
    // The state of HTTP is freed before a session begins, because a session may last for days.
    let upgraded = Box::pin(serve_http(&plane, endpoint, stream, peer, handshake)).await;
    if let Some((admitted, stream, already_read)) = upgraded {
        let tasks = plane.lifecycle.clone();
        tasks.spawn(async move {
            serve(admitted, stream, already_read).await;
            drop((connection, file));
        });
    }
}
