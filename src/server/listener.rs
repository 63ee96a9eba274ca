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
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::entrance::{Entered, Entrance, Peer, Stream};
use super::head_watch::{HeadWatch, Watch};
use super::router::route;
use super::{AllowedHosts, ConnectionsApi, Readiness, TrustedProxy};
use crate::data_plane::DataPlane;
use crate::data_plane::gateway_response::Body;
use crate::data_plane::websocket::{Admitted, serve};
use crate::limits::Slot;
use crate::limits::quota::HEAD_MAX_BYTES;

/// Connections that the kernel holds until they are accepted: a storm of reconnects fits.
const BACKLOG: i32 = 4096;

/// How long a backend's kept-alive connection may be idle. Longer than SDKs keep theirs, so that they close first and
/// no call meets a closing connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long the end of a connection may take to be written.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most headers of a request.
const HEADERS_MAX: usize = 128;

/// How long accepting pauses when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener is for.
#[derive(Debug)]
pub enum Endpoint {
    /// Clients, and backends' `@connections` calls.
    Public { connections_api: ConnectionsApi, trusted_proxies: Vec<TrustedProxy>, hosts: AllowedHosts },
    /// Operators, and backends' `@connections` calls.
    Internal { connections_api: ConnectionsApi, readiness: Readiness, hosts: AllowedHosts },
}

impl Endpoint {
    pub(super) fn connections_api(&self) -> ConnectionsApi {
        match self {
            Endpoint::Public { connections_api, .. } | Endpoint::Internal { connections_api, .. } => *connections_api,
        }
    }

    /// Returns `true` if requests for this Host are answered.
    pub(super) fn allows(&self, host: &str) -> bool {
        let (Endpoint::Public { hosts, .. } | Endpoint::Internal { hosts, .. }) = self;
        hosts.allow(host)
    }
}

/// A socket that listens and does not accept yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    entrance: Arc<Entrance>,
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
    pub fn bind(address: SocketAddr, entrance: Arc<Entrance>) -> Result<Self, BindError> {
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

    /// The address that was taken, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`. It only accepts: everything else happens in a task of each connection.
    pub async fn serve(self, plane: Arc<DataPlane>, endpoint: Arc<Endpoint>, stop: CancellationToken) {
        let entrance = Arc::clone(&self.entrance);
        let start = |stream, peer| {
            let (plane, endpoint, entrance) = (Arc::clone(&plane), Arc::clone(&endpoint), Arc::clone(&entrance));
            let tasks = plane.lifecycle.clone();
            if entrance.is_plain() {
                tasks.spawn(serve_plain(plane, endpoint, entrance, stream, peer));
            } else {
                tasks.spawn(serve_guarded(plane, endpoint, entrance, stream, peer));
            }
        };
        self.accept(stop, start).await;
    }

    /// The address that the other end of `stream` connected to. Only a listener of all addresses has to ask for it.
    fn local_address(&self, stream: &TcpStream) -> SocketAddr {
        match self.address.ip().is_unspecified() {
            true => stream.local_addr().unwrap_or(self.address),
            false => self.address,
        }
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
                Ok((stream, remote)) => {
                    let local = self.local_address(&stream);
                    start(stream, Peer::new(remote, local));
                }
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
async fn serve_plain(
    plane: Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    entrance: Arc<Entrance>,
    stream: TcpStream,
    peer: Peer,
) {
    let Some(entered) = entrance.admit(&plane, peer) else { return };
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(%error, "a connection was lost before it began");
    }
    drop(entrance);
    serve_stream(plane, endpoint, stream, entered).await;
}

/// As [`serve_plain`], for a connection that begins with a PROXY header or a TLS handshake. All of that is under the
/// handshake timeout, and freed before a session begins.
async fn serve_guarded(
    plane: Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    entrance: Arc<Entrance>,
    stream: TcpStream,
    peer: Peer,
) {
    let handshake_timeout = plane.live().limits.handshake_timeout();
    let entering = timeout(handshake_timeout, Box::pin(entrance.enter(&plane, stream, peer)));
    let entered = tokio::select! {
        biased;
        () = plane.lifecycle.aborting().cancelled() => return,
        entered = entering => entered,
    };
    drop(entrance);
    match entered {
        Ok(Some((Stream::Tls(stream), entered))) => serve_stream(plane, endpoint, *stream, entered).await,
        Ok(Some((Stream::Plain(stream), entered))) => serve_stream(plane, endpoint, stream, entered).await,
        Ok(None) => {}
        Err(_elapsed) => debug!("a client did not finish its handshake in time"),
    }
}

async fn serve_stream<S>(plane: Arc<DataPlane>, endpoint: Arc<Endpoint>, stream: S, entered: Entered)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Entered { peer, handshake, connection } = entered;
    // What HTTP needs is freed before a session begins: a session may last for days.
    let upgraded = Box::pin(serve_http(&plane, endpoint, stream, peer, handshake)).await;
    if let Some((admitted, stream, already_read)) = upgraded {
        let tasks = plane.lifecycle.clone();
        tasks.spawn(async move {
            serve(admitted, stream, already_read).await;
            drop(connection);
        });
    }
}

type Upgraded<S> = (Admitted, S, bytes::Bytes);

/// Whether the client has asked for anything yet; until then it keeps its place among the handshakes of its address.
#[derive(Default)]
struct Heard {
    asked: AtomicBool,
    handshake: Mutex<Option<Slot>>,
}

impl Heard {
    fn hear(&self) {
        if !self.asked.swap(true, Ordering::Relaxed) {
            self.handshake.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

async fn serve_http<S>(
    plane: &Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    stream: S,
    peer: Peer,
    handshake: Option<Slot>,
) -> Option<Upgraded<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let session = Session::default();
    let watch = Watch::default();
    // Who is over its limit keeps its place until it is gone.
    let (kept, given_back) = if peer.is_over { (handshake, None) } else { (None, handshake) };
    let heard = Arc::new(Heard { asked: AtomicBool::new(false), handshake: Mutex::new(given_back) });
    let service = {
        let (plane, session, heard, watch) = (Arc::clone(plane), session.clone(), Arc::clone(&heard), watch.clone());
        service_fn(move |request: Request<Incoming>| {
            heard.hear();
            let head = watch.head();
            let (plane, endpoint, session) = (Arc::clone(&plane), Arc::clone(&endpoint), session.clone());
            let (peer, watch) = (peer.clone(), watch.clone());
            let response: ResponseFuture = Box::pin(async move {
                let response = route(&plane, &endpoint, &peer, head, &session, request).await;
                watch.next();
                Ok(response)
            });
            response
        })
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(KEEP_ALIVE_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(HeadWatch::new(stream, watch)), service);
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
                    if !heard.asked.load(Ordering::Relaxed) {
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
    drop(kept);
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    let Some(admitted) = session.take() else {
        // TLS has an end of its own, and clients take its absence for an attack.
        let _ = timeout(GOODBYE_TIMEOUT, stream.shutdown()).await;
        return None;
    };
    Some((admitted, stream, parts.read_buf))
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
