use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// One HTTP connection of a backend to a node.
pub(crate) struct Http(SendRequest<Full<Bytes>>);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr, tasks: &TaskTracker) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tasks.spawn(connection);
        Http(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Reply {
        self.0.ready().await.unwrap();
        let response = timeout(Duration::from_secs(30), self.0.send_request(request)).await.expect("in time").unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn call(&mut self, method: Method, id: &str, data: impl Into<Bytes>) -> Reply {
        self.send(request(method, &format!("/_aws/execute-api/chat/prod/@connections/{id}"), data)).await
    }

    pub(crate) async fn post(&mut self, id: &str, data: impl Into<Bytes>) -> Reply {
        self.call(Method::POST, id, data).await
    }

    pub(crate) async fn get(&mut self, id: &str) -> Reply {
        self.call(Method::GET, id, "").await
    }

    pub(crate) async fn delete(&mut self, id: &str) -> Reply {
        self.call(Method::DELETE, id, "").await
    }
}

pub(crate) fn request(method: Method, path: &str, data: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    request.body(Full::new(data.into())).unwrap()
}

impl Reply {
    /// The AWS error type and whether the caller is asked to try again soon.
    pub(crate) fn error(&self) -> (u16, &str, bool) {
        let error_type = self.headers.get("x-amzn-errortype").map_or("", |value| value.to_str().unwrap());
        (self.status, error_type, self.headers.contains_key("retry-after"))
    }
}
