use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::{LIMIT, RawClient, within};

/// An answer over HTTP/1.1.
#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// Returns the first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// Returns the body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the error type that SDKs look at.
    pub fn error_type(&self) -> Option<&str> {
        self.header("x-amzn-errortype")
    }

    /// Returns the status, the error type, and whether the caller is asked to try again soon.
    pub fn error(&self) -> (u16, &str, bool) {
        (self.status, self.error_type().unwrap_or_default(), self.headers.contains_key("retry-after"))
    }
}

/// An HTTP client that keeps its connections, for many calls to few places.
#[derive(Clone)]
pub struct HttpClient(Client<HttpConnector, Full<Bytes>>);

impl Default for HttpClient {
    fn default() -> Self {
        HttpClient(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl HttpClient {
    /// Sends a request.
    ///
    /// # Errors
    /// There was no whole response, within [`LIMIT`](crate::LIMIT) or at all.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<HttpResponse, Box<dyn Error + Send + Sync>> {
        let exchange = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            Ok(HttpResponse { status: head.status.as_u16(), headers: head.headers, body })
        };
        timeout(LIMIT, exchange).await?
    }

    /// Sends a request, which has to be answered.
    pub async fn call(
        &self,
        address: SocketAddr,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> HttpResponse {
        let mut request = Request::builder().method(method).uri(format!("http://{address}{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        self.send(request).await.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }
}

/// Sends one request on a connection of its own, with exactly this target. `Host` is the address unless it is among the headers.
pub async fn http(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> HttpResponse {
    let mut client = RawClient::connect(address).await;
    client.send(&request(address, method, target, headers, body)).await;
    client.response().await
}

/// Returns the bytes of such a request.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        let _ = write!(head, "Host: {address}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Returns whether bytes hold one response to the end of its body.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    bytes.len() >= end + 4 + length.unwrap_or(0)
}

/// Reads one response; what comes behind it stays in `buffer`.
pub(crate) async fn read_response(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> HttpResponse {
    within("a response", async {
        let end = loop {
            if let Some(position) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break position + 4;
            }
            let read = stream.read_buf(buffer).await.expect("a response");
            assert!(read > 0, "the connection was closed after {:?}", String::from_utf8_lossy(buffer));
        };
        let head = String::from_utf8(buffer.drain(..end).collect()).expect("a head in UTF-8");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        let length = headers.get("content-length").map_or(0, |length| {
            length.to_str().ok().and_then(|length| length.parse::<usize>().ok()).expect("a length")
        });
        while buffer.len() < length {
            assert!(stream.read_buf(buffer).await.expect("a body") > 0, "the body of {head} is too short");
        }
        HttpResponse { status: status.expect("a status"), headers, body: buffer.drain(..length).collect() }
    })
    .await
}
