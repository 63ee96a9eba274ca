use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// Accepts every client, and remembers which connection has the name that it gave in its query string.
#[derive(Clone)]
pub(crate) struct TestBackend {
    pub(crate) address: SocketAddr,
    ids: Arc<Mutex<HashMap<String, String>>>,
}

impl TestBackend {
    pub(crate) async fn start(tasks: &TaskTracker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = TestBackend { address: listener.local_addr().unwrap(), ids: Arc::default() };
        let serving = backend.clone();
        let all = tasks.clone();
        tasks.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let backend = serving.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    backend.remember(&request);
                    std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
                });
                let connection = hyper::server::conn::http1::Builder::new();
                all.spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        backend
    }

    fn remember(&self, request: &Request<Incoming>) {
        let name = request.uri().query().and_then(|query| query.strip_prefix("name="));
        let id = request.headers().get("x-tidegate-connection-id").and_then(|id| id.to_str().ok());
        if let (Some(name), Some(id)) = (name, id) {
            self.ids.lock().unwrap().insert(name.to_owned(), id.to_owned());
        }
    }

    pub(crate) fn id_of(&self, name: &str) -> String {
        self.ids.lock().unwrap()[name].clone()
    }
}
