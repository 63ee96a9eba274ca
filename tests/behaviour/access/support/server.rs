use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// A request that a server got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The kind of event that the gateway says it is.
    pub(crate) fn event(&self) -> &str {
        self.headers.get("x-tidegate-event-type").map_or("", |value| value.to_str().expect("text"))
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Body(u16, String),
    Redirect(String),
    Never,
}

impl Answer {
    pub(crate) fn json(value: &Value) -> Self {
        Answer::Body(200, value.to_string())
    }
}

type Answers = Arc<Mutex<Box<dyn Fn(&Got) -> Answer + Send>>>;

/// An HTTP server on loopback. Its tasks end with the runtime of the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    got: mpsc::UnboundedReceiver<Got>,
    answers: Answers,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Got) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, got) = mpsc::unbounded_channel();
        let answers: Answers = Arc::new(Mutex::new(Box::new(answer)));
        let tasks = TaskTracker::new();
        let shared = Arc::clone(&answers);
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, answers) = (sender.clone(), Arc::clone(&shared));
                tasks.spawn(async move {
                    let service = service_fn(move |request| answer_one(request, sender.clone(), Arc::clone(&answers)));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Server { address, got, answers }
    }

    /// A backend that accepts every client and says its name to every message.
    pub(crate) async fn backend() -> Self {
        Server::start(|_| Answer::Body(200, r#"{"statusCode":200,"body":"hello"}"#.to_owned())).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers otherwise from now on.
    pub(crate) fn answer(&self, answer: impl Fn(&Got) -> Answer + Send + 'static) {
        *self.answers.lock().expect("no panic") = Box::new(answer);
    }

    /// The next request, which must come.
    pub(crate) async fn next(&mut self) -> Got {
        timeout(Duration::from_secs(10), self.got.recv()).await.expect("a request in time").expect("a server")
    }

    /// How many requests came since somebody looked.
    pub(crate) fn count(&mut self) -> usize {
        std::iter::from_fn(|| self.got.try_recv().ok()).count()
    }
}

async fn answer_one(
    request: http::Request<Incoming>,
    sender: mpsc::UnboundedSender<Got>,
    answers: Answers,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let got = Got { path: head.uri.to_string(), headers: head.headers, body };
    let answer = (answers.lock().expect("no panic"))(&got);
    let _ = sender.send(got);
    let response = http::Response::builder();
    let response = match answer {
        Answer::Body(status, body) => response.status(status).body(Full::from(body)),
        Answer::Redirect(to) => response.status(302).header("location", to).body(Full::default()),
        Answer::Never => std::future::pending().await,
    };
    Ok(response.expect("an answer"))
}
