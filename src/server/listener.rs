use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::router::route;
use super::{ConnectionsApi, Readiness, TrustedProxy};
use crate::data_plane::DataPlane;
use crate::data_plane::gateway_response::Body;
use crate::data_plane::websocket::{Admitted, serve};
use crate::limits::quota::HEAD_MAX_BYTES;

/// Connections that the kernel holds until they are accepted: a storm of reconnects fits.
const BACKLOG: i32 = 4096;

/// How long a backend's kept-alive connection may be idle. Longer than SDKs keep theirs, so that they close first and
/// no call meets a closing connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);

/// Most headers of a request.
const HEADERS_MAX: usize = 128;

/// How long accepting pauses when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener is for.
#[derive(Debug)]
pub enum Endpoint {
    /// Clients, and backends' `@connections` calls.
    Public { connections_api: ConnectionsApi, trusted_proxies: Vec<TrustedProxy> },
    /// Operators, and backends' `@connections` calls.
    Internal { connections_api: ConnectionsApi, readiness: Readiness },
}

impl Endpoint {
    pub(super) fn connections_api(&self) -> ConnectionsApi {
        match self {
            Endpoint::Public { connections_api, .. } | Endpoint::Internal { connections_api, .. } => *connections_api,
        }
    }
}

/// A socket that listens and does not accept yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("could not listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl Listener {
    /// Takes the address. Must be called on the runtime.
    ///
    /// # Errors
    /// The address is in use, not this machine's, or not allowed.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from_std(socket.into())?;
            let address = socket.local_addr()?;
            Ok(Listener { socket, address })
        };
        bind().map_err(|source| BindError { address, source })
    }

    /// The address that was taken, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`. It only accepts: everything else happens in a task of each connection.
    pub async fn serve(self, plane: Arc<DataPlane>, endpoint: Arc<Endpoint>, stop: CancellationToken) {
        let start = |stream, peer| {
            plane.lifecycle.spawn(serve_connection(Arc::clone(&plane), Arc::clone(&endpoint), stream, peer));
        };
        self.accept(stop, start).await;
    }

    /// Accepts until `stop`, and has each connection served by `start`, which must not wait.
    pub(super) async fn accept(self, stop: CancellationToken, start: impl Fn(TcpStream, Peer)) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => start(stream, Peer { remote, local: self.address }),
                Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection was lost before it began"),
                Err(error) => {
                    warn!(%error, "could not accept a connection; is the limit of open files reached?");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Both ends of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
}

/// Where an upgrade leaves its session until the 101 is out. Dropped with a session in it, the client never got its
/// 101, and the session ends by itself.
#[derive(Clone, Default)]
pub(super) struct Session(Arc<Mutex<Option<Admitted>>>);

impl Session {
    pub(super) fn put(&self, admitted: Admitted) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(admitted);
    }

    fn take(&self) -> Option<Admitted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One connection of a client or a backend: requests one after the other, and a session if it is upgraded.
async fn serve_connection(plane: Arc<DataPlane>, endpoint: Arc<Endpoint>, stream: TcpStream, peer: Peer) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection was lost before it began");
        return;
    }
    // What HTTP needs is freed before a session begins: a session may last for days.
    let upgraded = Box::pin(serve_http(&plane, endpoint, stream, peer)).await;
    if let Some((admitted, stream, already_read)) = upgraded {
        let tasks = plane.lifecycle.clone();
        tasks.spawn(serve(admitted, stream, already_read));
    }
}

type Upgraded = (Admitted, TcpStream, bytes::Bytes);

async fn serve_http(
    plane: &Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    stream: TcpStream,
    peer: Peer,
) -> Option<Upgraded> {
    let session = Session::default();
    let heard = Arc::new(AtomicBool::new(false));
    let service = {
        let (plane, session, heard) = (Arc::clone(plane), session.clone(), Arc::clone(&heard));
        service_fn(move |request: Request<Incoming>| {
            heard.store(true, Ordering::Relaxed);
            let (plane, endpoint, session) = (Arc::clone(&plane), Arc::clone(&endpoint), session.clone());
            let response: ResponseFuture =
                Box::pin(async move { Ok(route(&plane, &endpoint, peer, &session, request).await) });
            response
        })
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(KEEP_ALIVE_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    {
        let handshake_timeout = plane.live().limits.handshake_timeout();
        let mut handshake_timeout = pin!(sleep(handshake_timeout));
        let mut aborting = pin!(plane.lifecycle.aborting().cancelled());
        let (mut is_waiting, mut is_aborting) = (true, false);
        loop {
            tokio::select! {
                biased;
                result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => match result {
                    Ok(()) => break,
                    Err(error) => {
                        debug!(%error, "an HTTP connection failed");
                        return None;
                    }
                },
                () = &mut handshake_timeout, if is_waiting => {
                    is_waiting = false;
                    if !heard.load(Ordering::Relaxed) {
                        debug!("a client did not send its request in time");
                        return None;
                    }
                }
                () = &mut aborting, if !is_aborting => {
                    is_aborting = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    }
    let parts = connection.into_parts();
    let admitted = session.take()?;
    Some((admitted, parts.io.into_inner(), parts.read_buf))
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
