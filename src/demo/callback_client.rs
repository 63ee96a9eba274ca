use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Posts in flight at once, and so the most HTTP connections to the gateway; a further post waits.
const POSTS_IN_FLIGHT_MAX: usize = 64;

/// HTTP connections that are kept for the next post; a further one is closed.
const IDLE_MAX: usize = 16;

/// One deadline for a whole post. It is longer than the gateway waits for a client that reads nothing.
const POST_TIMEOUT: Duration = Duration::from_secs(15);

/// Most of the gateway's answer that is read; more is an error.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Why a post has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("the callback URL is not an http URL")]
    Url,
    #[error("could not connect to the gateway")]
    Connect(#[source] std::io::Error),
    #[error("the gateway broke off the HTTP connection")]
    Http(#[source] hyper::Error),
    #[error("the gateway's answer cannot be read")]
    Answer,
    #[error("no answer within {} seconds", POST_TIMEOUT.as_secs())]
    Timeout,
}

/// Posts to connections, over HTTP connections that are kept open.
///
/// It connects to its own gateways and nowhere else: of a callback URL it takes the host as the `Host` header, and the
/// path. So an event that somebody forges cannot make it call other services. With several gateways, which are nodes of
/// one cluster, it posts through any of them, as through a load balancer: each reaches every connection.
#[derive(Debug)]
pub(super) struct CallbackClient {
    /// `HOST:PORT` of each gateway.
    addresses: Vec<String>,
    /// Which of them the next HTTP connection leads to.
    turn: AtomicUsize,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    permits: Semaphore,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl CallbackClient {
    pub(super) fn new(addresses: Vec<String>, shutdown: CancellationToken, tasks: TaskTracker) -> Self {
        let permits = Semaphore::new(POSTS_IN_FLIGHT_MAX);
        CallbackClient { addresses, turn: AtomicUsize::new(0), idle: Mutex::default(), permits, shutdown, tasks }
    }

    /// Posts `data` to a connection, as a part of `trace`; the status says what became of it.
    pub(super) async fn post(
        &self,
        callback_url: &str,
        data: Bytes,
        trace: Option<&HeaderValue>,
    ) -> Result<StatusCode, PostError> {
        let uri: Uri = callback_url.parse().map_err(|_| PostError::Url)?;
        let (Some("http"), Some(host)) = (uri.scheme_str(), uri.authority()) else { return Err(PostError::Url) };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri.path())
            .header(header::HOST, host.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(data))
            .map_err(|_| PostError::Url)?;
        if let Some(trace) = trace {
            request.headers_mut().insert(TRACEPARENT, trace.clone());
        }
        tokio::time::timeout(POST_TIMEOUT, self.send(request)).await.unwrap_or(Err(PostError::Timeout))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, PostError> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let (response, connection) = self.exchange(request).await?;
        let status = response.status();
        // Read to the end: only then can the connection be used again.
        Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await.map_err(|_| PostError::Answer)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(status)
    }

    /// Sends on a kept connection. If the gateway has closed that one before anything was sent, takes the next.
    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, SendRequest<Full<Bytes>>), PostError> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = kept else { break };
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(PostError::Http(error.into_error())),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await.map_err(PostError::Http)?;
        Ok((response, connection))
    }

    /// To the next gateway that can be reached.
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, PostError> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut stream = Err(std::io::ErrorKind::NotFound.into());
        for address in
            self.addresses.iter().cycle().skip(first % self.addresses.len().max(1)).take(self.addresses.len())
        {
            stream = TcpStream::connect(address).await;
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream.map_err(PostError::Connect)?;
        stream.set_nodelay(true).map_err(PostError::Connect)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(PostError::Http)?;
        let shutdown = self.shutdown.clone();
        // Its errors reach the post that is under way.
        self.tasks.spawn(async move { shutdown.run_until_cancelled(connection).await });
        Ok(sender)
    }
}
