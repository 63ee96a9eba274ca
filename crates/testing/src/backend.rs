use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::{Reply, eventually, within};

/// Chunk of a large body, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// A message behind which an echoing backend closes its connection to the gateway.
pub const LAST: &str = "the last on this connection";

type Handler = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;
type Body = BoxBody<Bytes, io::Error>;

/// An HTTP server that records each call whole and answers as it is told: by the queue of the call's event type, and
/// when that is empty by one closure.
pub struct TestBackend {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// A call, as it came.
#[derive(Debug)]
pub struct Call {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

struct Shared {
    calls: Mutex<Calls>,
    arrived: watch::Sender<usize>,
    queues: Mutex<HashMap<String, VecDeque<Reply>>>,
    handler: Mutex<Handler>,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
}

#[derive(Default)]
struct Calls {
    all: Vec<Arc<Call>>,
    /// Number of events of each type that a test has taken.
    taken: HashMap<String, usize>,
    /// Number of calls, of any type, that a test has taken or counted.
    seen: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

impl TestBackend {
    /// Listens for HTTP/1.1 on a free port.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens for HTTP/1.1 on an address of the test's own.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::listen(address, Protocol::Http1, None).await
    }

    /// Listens for HTTP/2 with prior knowledge.
    pub async fn start_http2() -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), Protocol::Http2, None).await
    }

    /// Listens for HTTP/1.1 over TLS.
    pub async fn start_tls(tls: rustls::ServerConfig) -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), Protocol::Http1, Some(Arc::new(tls).into())).await
    }

    async fn listen(address: SocketAddr, protocol: Protocol, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            arrived: watch::Sender::new(0),
            queues: Mutex::default(),
            handler: Mutex::new(Arc::new(|_| Reply::ok())),
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        let backend = TestBackend {
            address: listener.local_addr().expect("an address"),
            scheme: if tls.is_some() { "https" } else { "http" },
            shared: Arc::clone(&shared),
            _stop: stop.clone().drop_guard(),
        };
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (shared, tls, stop) = (Arc::clone(&shared), tls.clone(), stop.clone());
                tasks.spawn(async move {
                    let serving = async {
                        match tls {
                            None => serve(shared, stream, protocol).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(shared, stream, protocol).await;
                                }
                            }
                        }
                    };
                    stop.run_until_cancelled(Box::pin(serving)).await;
                });
            }
        });
        backend
    }

    /// Answers every call by `handler` from its start.
    pub async fn start_with(handler: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let backend = Self::start().await;
        backend.answer_with(handler);
        backend
    }

    /// Lets every client in, and says `hello` to every message.
    pub async fn saying_hello() -> Self {
        Self::start_with(|_| Reply::body("hello")).await
    }

    /// Answers every event with 200: a client with the first subprotocol that it offers, a message with its own body.
    /// Closes the connection behind [`LAST`].
    pub fn echoing(self) -> Self {
        self.answer_with(echo);
        self
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its URL, without a path.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Answers the next call of an event type (`CONNECT`, `MESSAGE`, `DISCONNECT`).
    pub fn answer(&self, event_type: &str, reply: Reply) {
        self.shared.queues.lock().unwrap().entry(event_type.to_owned()).or_default().push_back(reply);
    }

    /// Answers each call for which no answer is queued.
    pub fn answer_with(&self, handler: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        *self.shared.handler.lock().unwrap() = Arc::new(handler);
    }

    /// Returns the next call of an event type that the test has not seen yet.
    pub async fn next(&self, event_type: &str) -> Arc<Call> {
        let mut arrived = self.shared.arrived.subscribe();
        within(&format!("a {event_type} call"), async {
            loop {
                arrived.borrow_and_update();
                if let Some(call) = self.take(event_type) {
                    return call;
                }
                arrived.changed().await.expect("the backend lives");
            }
        })
        .await
    }

    fn take(&self, event_type: &str) -> Option<Arc<Call>> {
        let mut calls = self.shared.calls.lock().unwrap();
        let Calls { all, taken, .. } = &mut *calls;
        let taken = taken.entry(event_type.to_owned()).or_default();
        let call = all.iter().filter(|call| call.event_type() == event_type).nth(*taken).cloned()?;
        *taken += 1;
        Some(call)
    }

    /// Returns the next call of whatever type that the test has not seen yet.
    pub async fn next_call(&self) -> Arc<Call> {
        let mut arrived = self.shared.arrived.subscribe();
        within("a call", async {
            loop {
                arrived.borrow_and_update();
                if let Some(call) = self.take_any() {
                    return call;
                }
                arrived.changed().await.expect("the backend lives");
            }
        })
        .await
    }

    fn take_any(&self) -> Option<Arc<Call>> {
        let mut calls = self.shared.calls.lock().unwrap();
        let call = calls.all.get(calls.seen).cloned()?;
        calls.seen += 1;
        Some(call)
    }

    /// Returns how many calls came that [`TestBackend::next_call`] has not returned, and takes them as seen.
    pub fn count_new(&self) -> usize {
        std::iter::from_fn(|| self.take_any()).count()
    }

    /// Waits until there is a call of an event type; returns the last one.
    pub async fn last(&self, event_type: &str) -> Arc<Call> {
        eventually(&format!("a {event_type} call"), async || !self.calls(event_type).is_empty()).await;
        self.calls(event_type).pop().expect("there is one")
    }

    /// Returns the connection of the client that came with `?name=NAME`.
    pub fn connection_of(&self, name: &str) -> Option<String> {
        let query = format!("name={name}");
        let calls = self.calls("CONNECT");
        let call = calls.iter().rev().find(|call| call.uri.query() == Some(&query))?;
        Some(call.connection_id().to_owned())
    }

    /// Leaves out the calls of an event type that the test has not seen.
    pub fn skip(&self, event_type: &str) {
        while self.take(event_type).is_some() {}
    }

    /// Returns all calls of an event type so far, in their order.
    pub fn calls(&self, event_type: &str) -> Vec<Arc<Call>> {
        let calls = self.shared.calls.lock().unwrap();
        calls.all.iter().filter(|call| call.event_type() == event_type).cloned().collect()
    }

    /// Returns the event types of all calls, in their order.
    pub fn order(&self) -> Vec<String> {
        self.shared.calls.lock().unwrap().all.iter().map(|call| call.event_type().to_owned()).collect()
    }

    /// Returns the largest number of calls that were unanswered at once.
    pub fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max.load(Ordering::SeqCst)
    }
}

impl Call {
    /// Returns the kind of event that the gateway says the call is.
    pub fn event_type(&self) -> &str {
        self.headers.get("x-tidegate-event-type").map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// Returns the one value of a header.
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name} of {:?}", self.headers);
        values[0].to_str().expect("ASCII")
    }

    /// Returns the connection that the call is about.
    pub fn connection_id(&self) -> &str {
        self.header("x-tidegate-connection-id")
    }

    /// Returns the proxy event.
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Returns the `requestContext` of the proxy event.
    pub fn context(&self) -> Value {
        self.event()["requestContext"].take()
    }

    /// Returns the body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// Returns the code and the reason of a `$disconnect` event.
    pub fn closing(&self) -> (u64, String) {
        let context = self.context();
        let code = context["disconnectStatusCode"].as_u64().expect("a number");
        assert_eq!(self.header("x-tidegate-disconnect-code"), code.to_string());
        let reason = context["disconnectReason"].as_str().expect("a text").to_owned();
        let header = percent_encoding::percent_decode_str(self.header("x-tidegate-disconnect-reason"));
        assert_eq!(header.decode_utf8().expect("UTF-8"), reason);
        (code, reason)
    }
}

async fn serve<S>(shared: Arc<Shared>, stream: S, protocol: Protocol)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (raw, mut raws) = mpsc::channel(1);
    let service = service_fn(move |request| answer(Arc::clone(&shared), raw.clone(), request));
    if protocol == Protocol::Http2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        return;
    }
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let raw: &'static [u8] = tokio::select! {
        _ = &mut connection => return,
        Some(raw) = raws.recv() => raw,
    };
    let mut stream = connection.into_parts().io.into_inner();
    let _ = stream.write_all(raw).await;
    let _ = stream.shutdown().await;
}

struct InFlight(Arc<Shared>);

impl InFlight {
    fn begin(shared: &Arc<Shared>) -> Self {
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.in_flight_max.fetch_max(now, Ordering::SeqCst);
        InFlight(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    shared: Arc<Shared>,
    raw: mpsc::Sender<&'static [u8]>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let call =
        Arc::new(Call { method: head.method, uri: head.uri, version: head.version, headers: head.headers, body });
    let _in_flight = InFlight::begin(&shared);
    let queued = shared.queues.lock().unwrap().get_mut(call.event_type()).and_then(VecDeque::pop_front);
    let handler = Arc::clone(&shared.handler.lock().unwrap());
    let mut reply = queued.unwrap_or_else(|| handler(&call));
    shared.calls.lock().unwrap().all.push(call);
    shared.arrived.send_modify(|count| *count += 1);
    while let Reply::Held(gate, inner) = reply {
        gate.opened().await;
        reply = *inner;
    }
    let mut response = Response::new(full(Bytes::new()));
    match reply {
        Reply::Held(..) => unreachable!("opened above"),
        Reply::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
        Reply::Raw(bytes) => {
            let _ = raw.send(bytes).await;
            std::future::pending::<()>().await;
        }
        Reply::Half => {
            let pieces = [Ok(Frame::data(Bytes::from_static(b"{\"statusCode\""))), Err(io::Error::other("half"))];
            *response.body_mut() = BodyExt::boxed(StreamBody::new(stream::iter(pieces)));
            response.headers_mut().insert("content-length", 100.into());
        }
        Reply::Large(bytes) => {
            let chunks = bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes).expect("fits") / CHUNK_BYTES);
            let chunk = || Ok(Frame::data(Bytes::from_static(&[b' '; CHUNK_BYTES])));
            *response.body_mut() = BodyExt::boxed(StreamBody::new(stream::iter((0..chunks).map(move |_| chunk()))));
            if let Some(bytes) = bytes {
                response.headers_mut().insert("content-length", bytes.into());
            }
        }
        Reply::Http { status, headers, body } => {
            *response.status_mut() = status.try_into().expect("a status");
            for (name, value) in headers {
                let name: http::HeaderName = name.parse().expect("a name");
                response.headers_mut().append(name, value.parse().expect("a value"));
            }
            *response.body_mut() = full(body);
        }
    }
    Ok(response)
}

fn echo(call: &Call) -> Reply {
    let event: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let text = event["body"].as_str().unwrap_or_default();
    let mut answer = json!({ "statusCode": 200, "body": text });
    if let Some(offered) = event["headers"]["Sec-WebSocket-Protocol"].as_str() {
        answer["headers"] = json!({ "Sec-WebSocket-Protocol": offered.split(',').next() });
    }
    let reply = Reply::json(&answer);
    if text == LAST { reply.header("connection", "close") } else { reply }
}

fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed()
}
