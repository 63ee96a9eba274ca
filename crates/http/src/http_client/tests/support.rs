//! A client, and servers with a behaviour that each test chooses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::http_client::{Answer, Backend, Call, CallError, HttpClient};

/// A client and the tracker of its tasks.
pub(super) struct TestClient {
    pub(super) client: HttpClient,
    pub(super) tasks: TaskTracker,
}

impl TestClient {
    pub(super) fn new() -> Self {
        let tasks = TaskTracker::new();
        TestClient { client: HttpClient::new(tasks.clone()), tasks }
    }

    pub(super) fn backend(&self, server: &Server, max_connections: usize) -> Arc<Backend> {
        self.client.backend(&server.uri("http"), false, max_connections).expect("an address")
    }

    pub(super) async fn get(&self, backend: &Arc<Backend>, path: &str) -> Result<Answer, CallError> {
        self.client.send(backend, || call(path)).await
    }

    /// Calls `path` and returns the body of the answer as text.
    pub(super) async fn text(&self, backend: &Arc<Backend>, path: &str) -> String {
        let answer = self.get(backend, path).await.expect("an answer");
        String::from_utf8(answer.body.to_vec()).expect("text")
    }
}

pub(super) fn call(path: &str) -> Call {
    Call {
        method: Method::POST,
        path_and_query: PathAndQuery::try_from(path).expect("a path"),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"hello"),
        timeout: Duration::from_secs(20),
        answer_max_bytes: 1024 * 1024,
    }
}

/// Returns a call with another timeout.
pub(super) fn call_within(path: &str, timeout: Duration) -> Call {
    Call { timeout, ..call(path) }
}

/// A listening socket. Its tasks end with the runtime of the test.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open_max: Arc<AtomicUsize>,
}

impl Server {
    /// Starts a server that serves all connections concurrently with `serve`.
    pub(super) fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(1024, false, Duration::ZERO, serve)
    }

    /// Starts a server that serves one connection after the other, like Python's `http.server`, with its backlog of 5.
    pub(super) fn start_single_threaded<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(5, true, Duration::ZERO, serve)
    }

    /// Starts a server that waits for `pause` before it accepts the next connection. The wait is the behaviour under
    /// test, not a synchronisation.
    pub(super) fn start_slow_to_accept<F>(pause: Duration, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(5, false, pause, serve)
    }

    fn listen<F>(
        backlog: i32,
        one_by_one: bool,
        pause: Duration,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("non-blocking");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        socket.listen(backlog).expect("listens");
        let listener = TcpListener::from_std(socket.into()).expect("a listener");
        let server = Server {
            address: listener.local_addr().expect("an address"),
            accepted: Arc::default(),
            open_max: Arc::default(),
        };
        let (accepted, open_max, open) =
            (Arc::clone(&server.accepted), Arc::clone(&server.open_max), Arc::new(AtomicUsize::new(0)));
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            loop {
                let (stream, _peer) = listener.accept().await.expect("accepts");
                accepted.fetch_add(1, Ordering::SeqCst);
                open_max.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let open = Arc::clone(&open);
                let serving = serve(stream);
                let serving = async move {
                    serving.await;
                    open.fetch_sub(1, Ordering::SeqCst);
                };
                if one_by_one {
                    serving.await;
                } else {
                    tasks.spawn(serving);
                }
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        });
        server
    }

    pub(super) fn uri(&self, scheme: &str) -> Uri {
        format!("{scheme}://{}/ignored", self.address).parse().expect("a URI")
    }

    /// Returns the number of connections accepted so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Returns the largest number of connections that were open at the same time.
    pub(super) fn open_max(&self) -> usize {
        self.open_max.load(Ordering::SeqCst)
    }
}

/// Reads one request with its body. Returns its path, or `None` at the end of the connection.
pub(super) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let head_length = loop {
        if let Some(position) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break position + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_length].to_vec()).expect("a head in ASCII").to_ascii_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.split("\r\n").next().and_then(|length| length.parse::<usize>().ok()).expect("a length"));
    while bytes.len() < head_length + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    head.split(' ').nth(1).map(str::to_owned)
}

/// Writes an answer that keeps the connection open.
pub(super) async fn answer(stream: &mut TcpStream, body: &str) {
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // The client may be gone.
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Serves a connection: answers each request with its path.
pub(super) async fn echo(mut stream: TcpStream) {
    while let Some(path) = read_request(&mut stream).await {
        answer(&mut stream, &path).await;
    }
}

/// Waits until `condition` holds, for at most 10 s.
pub(super) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{what} did not happen");
}
