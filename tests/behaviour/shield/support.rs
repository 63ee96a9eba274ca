//! A backend that records, a private authority, clients over any stream.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tidegate::app::Gateway;
use tidegate::config;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::task::TaskTracker;

pub(crate) use crate::harness::{Authority, Issued};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"))
}

pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    TaskTracker::new().spawn(future)
}

/// One call that a backend got.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn context(&self) -> Value {
        serde_json::from_slice::<Value>(&self.body).unwrap()["requestContext"].take()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A message behind which a backend closes its connection to the gateway.
pub(crate) const LAST: &str = "the last on this connection";

/// Answers every event with 200: a client with the first subprotocol that it offers, a message with its own body.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        Self::listen(None, false).await
    }

    pub(crate) async fn start_tls(tls: rustls::ServerConfig) -> Self {
        Self::listen(Some(Arc::new(tls).into()), false).await
    }

    /// Answers everything with a redirect.
    pub(crate) async fn start_redirecting() -> Self {
        Self::listen(None, true).await
    }

    async fn listen(tls: Option<TlsAcceptor>, redirects: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let recorded = Arc::clone(&calls);
        spawn(async move {
            let tasks = TaskTracker::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, calls) = (tls.clone(), Arc::clone(&recorded));
                tasks.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&calls), redirects, request));
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Backend { address, calls }
    }

    pub(crate) fn calls(&self, event_type: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.headers["x-tidegate-event-type"] == event_type).cloned().collect()
    }

    pub(crate) async fn last(&self, event_type: &str) -> Call {
        eventually("a call", async || !self.calls(event_type).is_empty()).await;
        self.calls(event_type).pop().unwrap()
    }
}

async fn answer(
    calls: Arc<Mutex<Vec<Call>>>,
    redirects: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    calls.lock().unwrap().push(Call { headers: parts.headers, body });
    let text = event["body"].as_str().unwrap_or_default();
    let is_last = text == LAST;
    let mut reply = serde_json::json!({ "statusCode": 200, "body": text });
    if let Some(offered) = event["headers"]["Sec-WebSocket-Protocol"].as_str() {
        reply["headers"] = serde_json::json!({ "Sec-WebSocket-Protocol": offered.split(',').next() });
    }
    let reply = reply.to_string();
    let mut response = Response::new(Full::from(reply));
    if is_last {
        response.headers_mut().insert("connection", "close".parse().unwrap());
    }
    if redirects {
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert("location", "http://127.0.0.1:1/".parse().unwrap());
    }
    Ok(response)
}

/// The parts of a configuration that tests change.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) public: String,
    pub(crate) top: String,
    pub(crate) api: String,
    pub(crate) integration: String,
    pub(crate) uri: String,
}

impl Settings {
    pub(crate) fn new(backend: &Backend) -> Self {
        Settings { uri: format!("http://{}/events", backend.address), ..Settings::default() }
    }

    pub(crate) fn text(&self) -> String {
        let Settings { public, top, api, integration, uri } = self;
        format!(
            "listeners:\n  public: {{ address: 127.0.0.1:0, connectionsApi: NONE, {public} }}\n  internal: {{ address: \
             127.0.0.1:0 }}\n{top}\napis:\n  chat:\n    routeSelectionExpression: $request.body.action\n    {api}\n    \
             integrations:\n      backend: {{ integrationType: AWS_PROXY, integrationUri: \"{uri}\", {integration} }}\n    \
             routes:\n      $connect: {{ target: integrations/backend }}\n      $disconnect: {{ target: \
             integrations/backend }}\n      $default: {{ target: integrations/backend, \
             routeResponseSelectionExpression: $default }}\n    stages: {{ prod: {{}}, beta: {{}} }}\n"
        )
    }

    /// The problems of the configuration, each with its place.
    pub(crate) fn problems(&self) -> String {
        let problems = config::load(&self.text(), &|_| None).err().unwrap_or_default();
        problems.iter().map(|problem| format!("{}: {}\n", problem.path, problem.message)).collect()
    }

    pub(crate) async fn start(&self) -> Gateway {
        let text = self.text();
        let config = config::load(&text, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
        Gateway::start(config).await.unwrap()
    }
}

pub(crate) async fn tls_stream(
    address: SocketAddr,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// A client's WebSocket.
pub(crate) struct Client<S>(pub(crate) WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn on(stream: S, url: &str, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (websocket, _) = within("a WebSocket handshake", Box::pin(client_async(request, stream))).await?;
        Ok(Client(websocket))
    }

    /// Sends a text and waits for its echo.
    pub(crate) async fn echo(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
        assert_eq!(self.next().await, text);
    }

    pub(crate) async fn next(&mut self) -> String {
        loop {
            match within("a message", self.0.next()).await.unwrap().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Client<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    Client::on(stream, &format!("ws://{address}/prod"), &[]).await.unwrap()
}

/// A TCP connection that comes from one of the loopback addresses.
pub(crate) async fn connect_from(source: &str, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0))?;
    within("a TCP connection", socket.connect(address)).await
}

/// Sends bytes on a connection of their own and reads all that is answered within a moment of the first answer.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    raw_on(&mut stream, bytes).await
}

pub(crate) async fn raw_on<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> String {
    // The gateway may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = vec![0; 16 * 1024];
    let length = within("an answer or the end", stream.read(&mut answer)).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// The bytes of a handshake.
pub(crate) fn handshake(host: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET /prod HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program to its end; whether it succeeded, and what it said.
pub(crate) async fn run(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
    input: &[u8],
) -> (bool, String) {
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    let output = timeout(Duration::from_secs(120), child.wait_with_output()).await.expect("it ends").unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The number in a metric whose line begins so.
pub(crate) async fn metric(gateway: &Gateway, begins: &str) -> f64 {
    let address = gateway.internal_address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    within("metrics", stream.read_to_string(&mut page)).await.unwrap();
    let lines = page.lines().filter(|line| line.starts_with(begins));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
