//! A connection attempt: name resolution, TCP, TLS, HTTP; then the task that drives the connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::backend::{Attempt, Backend, Permit};
use super::client::Shared;
use super::egress::EgressError;
use super::patient_timer::PatientTimer;
use super::pool::{Http1Connection, Http2Connection};
use super::writes::{Watched, Writes};
use crate::transport::{Connection, Ends};

/// The time after which a TCP connect is slow. It has most likely lost its first SYN, which Linux sends again after
/// 1 s, because the backend's listen backlog is full.
const SLOW_CONNECT: Duration = Duration::from_millis(500);

/// The time between pings on a shared HTTP/2 connection with open streams. Without pings, every call to a backend that
/// vanished would be lost until TCP gives up.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time for the answer to a ping, once the ping has arrived ([`PatientTimer`]).
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request.
pub(super) type Body = Full<Bytes>;

/// The reason why no request could be sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("could not resolve `{host}`")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("`{host}` has no address")]
    NoAddress { host: String },
    #[error("`{host}` may not be called at {address}")]
    Egress {
        host: String,
        address: IpAddr,
        #[source]
        source: EgressError,
    },
    #[error("could not connect to {address}")]
    Tcp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the TLS handshake with `{host}` failed")]
    Tls {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("could not start HTTP on a new connection")]
    Http(#[source] hyper::Error),
    #[error("connecting took too long")]
    TimedOut,
    /// The connection was closed, or refused the request, before the backend processed any of it, and so did the next
    /// one.
    #[error("the backend closed two connections before it processed the request")]
    Closed(#[source] hyper::Error),
    /// The runtime is shutting down.
    #[error("the connection attempt was dropped")]
    Dropped,
}

impl ConnectError {
    /// Returns true if the attempt failed for lack of time.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            ConnectError::TimedOut => true,
            ConnectError::Tcp { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }
}

/// A connection that can take its first request.
pub(super) enum Established {
    Http1(Http1Connection),
    Http2(Http2Connection),
}

/// Opens one connection and gives it to the pool, or reports the failure to the pool.
pub(super) async fn connect(backend: Arc<Backend>, mut attempt: Attempt, permit: Permit) {
    let deadline = attempt.deadline();
    let transport = match timeout_at(deadline, transport(&backend, &mut attempt)).await {
        Ok(transport) => transport,
        Err(_elapsed) => Err(ConnectError::TimedOut),
    };
    let tasks = &backend.shared().tasks;
    let writes = transport.as_ref().map(Transport::writes).unwrap_or_default();
    let result = match transport {
        Ok(Transport::Plain(stream)) if backend.http2() => http2(tasks, stream, writes, permit).await,
        // A TLS handshake proves that the backend has accepted the connection; TCP alone does not.
        Ok(Transport::Plain(stream)) => http1(tasks, stream, writes, permit, false).await,
        Ok(Transport::Tls(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            http2(tasks, stream, writes, permit).await
        }
        Ok(Transport::Tls(stream)) => http1(tasks, stream, writes, permit, true).await,
        Err(error) => {
            drop(permit);
            Err(error)
        }
    };
    match result {
        Ok(established) => attempt.succeed(established),
        Err(error) => attempt.fail(error),
    }
}

enum Transport {
    Plain(Watched),
    Tls(Box<tokio_rustls::client::TlsStream<Watched>>),
}

impl Transport {
    fn writes(&self) -> Writes {
        match self {
            Transport::Plain(stream) => stream.writes().clone(),
            Transport::Tls(stream) => stream.get_ref().0.writes().clone(),
        }
    }
}

async fn transport(backend: &Backend, attempt: &mut Attempt) -> Result<Transport, ConnectError> {
    let address = backend.address();
    let stream = tcp(backend.shared(), &address.host, address.port, attempt).await?;
    // Only an optimisation: a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let stream = Watched::new(stream);
    let Some((connector, server_name)) = &address.tls else {
        return Ok(Transport::Plain(stream));
    };
    let stream = connector
        .connect(server_name.clone(), stream)
        .await
        .map_err(|source| ConnectError::Tls { host: address.host.clone(), source })?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// Tries the addresses of `host` in order, each for at most a third of the time that is left.
async fn tcp(shared: &Shared, host: &str, port: u16, attempt: &mut Attempt) -> Result<TcpStream, ConnectError> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => {
            let found = shared.resolver.resolve(host, port).await;
            found.map_err(|source| ConnectError::Resolve { host: host.to_owned(), source })?
        }
    };
    let mut failure = ConnectError::NoAddress { host: host.to_owned() };
    let egress = shared.egress.load_full();
    for address in addresses {
        if let Err(source) = egress.check(host, address.ip()) {
            failure = ConnectError::Egress { host: host.to_owned(), address: address.ip(), source };
            tracing::warn!(host, address = %address.ip(), %source, "an address of a backend is forbidden; skipping it");
            continue;
        }
        let limit = attempt.deadline().saturating_duration_since(Instant::now()) / 3;
        let connecting = async {
            let mut connecting = std::pin::pin!(TcpStream::connect(address));
            match timeout(SLOW_CONNECT, &mut connecting).await {
                Ok(result) => result,
                Err(_elapsed) => {
                    attempt.note_slow();
                    connecting.await
                }
            }
        };
        let result = timeout(limit, connecting).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        match result {
            Ok(stream) => return Ok(stream),
            Err(source) => failure = ConnectError::Tcp { address, source },
        }
    }
    Err(failure)
}

async fn http1<I>(
    tasks: &TaskTracker,
    stream: I,
    writes: Writes,
    permit: Permit,
    proven: bool,
) -> Result<Established, ConnectError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match http1::handshake::<_, Body>(TokioIo::new(stream)).await {
        Ok((sender, connection)) => {
            let driver = tasks.spawn(drive(connection, permit)).abort_handle();
            Ok(Established::Http1(Http1Connection { sender, writes, driver, proven }))
        }
        Err(error) => Err(ConnectError::Http(error)),
    }
}

async fn http2<I>(tasks: &TaskTracker, stream: I, writes: Writes, permit: Permit) -> Result<Established, ConnectError>
where
    I: Connection + Send + 'static,
{
    let timer = PatientTimer { ends: stream.tcp().and_then(Ends::of), ping_timeout: HTTP2_PING_TIMEOUT };
    let handshake = http2::Builder::new(TrackedExecutor(tasks.clone()))
        .timer(timer)
        // Until the backend has announced how many streams it takes. It would refuse more than that, and the calls
        // would be lost.
        .initial_max_send_streams(1)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await;
    match handshake {
        Ok((sender, connection)) => {
            tasks.spawn(drive(connection, permit));
            Ok(Established::Http2(Http2Connection { sender, writes }))
        }
        Err(error) => Err(ConnectError::Http(error)),
    }
}

/// Drives one connection until it ends. `permit` is dropped after the socket, so that there are never more sockets than
/// permits.
async fn drive(connection: impl Future<Output = hyper::Result<()>>, permit: Permit) {
    if let Err(error) = connection.await {
        // The call on this connection, if there is one, gets its own error.
        tracing::trace!(%error, "a connection to a backend failed");
    }
    drop(permit);
}

/// The executor of the tasks that hyper spawns for an HTTP/2 connection and its streams.
#[derive(Clone)]
struct TrackedExecutor(TaskTracker);

impl<F> hyper::rt::Executor<F> for TrackedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
