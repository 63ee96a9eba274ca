use http::{HeaderMap, HeaderName, HeaderValue};

use crate::request_context::Connection;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Writes where a client's connection came from into the headers of a backend's call, in place of what is there: the
/// addresses on its way, the source first; the port that it used; whether it used TLS. A port of 0 is not known.
pub fn write_forwarded(headers: &mut HeaderMap, forwarded_for: &str, port: u16, secure: bool) {
    if let Ok(value) = HeaderValue::from_str(forwarded_for) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    match port {
        0 => _ = headers.remove(X_FORWARDED_PORT),
        port => _ = headers.insert(X_FORWARDED_PORT, port.into()),
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if secure { "https" } else { "http" }));
}

/// As [`write_forwarded`], by what is kept of a connection.
pub(super) fn write_forwarded_of(headers: &mut HeaderMap, connection: &Connection) {
    match &connection.forwarded_for {
        Some(forwarded_for) => write_forwarded(headers, forwarded_for, connection.port, connection.secure),
        None => write_forwarded(headers, &connection.source_ip.to_string(), connection.port, connection.secure),
    }
}
