//! The parts that the gateway's own responses consist of: status, `Content-Type` and body. `gateway_response.rs` maps
//! errors to them.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// The body of every response of the gateway, as a whole in memory.
pub type Body = Full<Bytes>;

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Returns a response with a body of type `content_type`.
pub fn respond(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Returns a response with `value` as its JSON body.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    respond(status, JSON, json_bytes(value))
}

/// Returns a response with `value` as its JSON body and a line break at its end, for people who call with curl.
pub fn json_line(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut body = json_bytes(value);
    body.push(b'\n');
    respond(status, JSON, body)
}

/// Returns a response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    respond(status, JSON, Bytes::new())
}

fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers are JSON")
}
