use std::fmt::Write as _;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{RawClient, within};

/// An answer over HTTP/1.1.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl HttpResponse {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error type that SDKs look at.
    pub(crate) fn error_type(&self) -> Option<&str> {
        self.header("x-amzn-errortype")
    }
}

/// Sends one request with exactly this target. `Host` is the address unless it is among the headers.
pub(crate) async fn http(
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

/// The bytes of such a request.
pub(super) fn request(
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

/// Reads one response; what comes behind it stays in `buffer`.
pub(super) async fn read_response(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> HttpResponse {
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
