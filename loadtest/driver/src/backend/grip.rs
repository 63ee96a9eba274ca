//! WebSocket-over-HTTP, as Pushpin speaks it: a request and its answer are lists of events. Each connection is
//! subscribed to the channel that its URL names.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::response;

const EVENTS: HeaderValue = HeaderValue::from_static("application/websocket-events");

/// The path of connections; their channel follows.
pub(super) const PATH: &str = "/websocket/";

/// Accepts every connection, and ignores what clients send.
pub(super) fn answer(channel: &str, events: &[u8]) -> Response<Full<Bytes>> {
    let mut answer = String::new();
    if events.starts_with(b"OPEN\r\n") {
        let subscribe = format!("c:{{\"type\":\"subscribe\",\"channel\":\"{channel}\"}}");
        answer = format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len());
    } else if events.starts_with(b"CLOSE") {
        answer.push_str("CLOSE\r\n");
    }
    let mut response = response(StatusCode::OK, answer.into());
    response.headers_mut().insert(http::header::CONTENT_TYPE, EVENTS);
    response.headers_mut().insert("sec-websocket-extensions", HeaderValue::from_static("grip"));
    response
}
