use http::{HeaderMap, HeaderName, HeaderValue};

use tidegate_core::request_context::Connection;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Sets `X-Forwarded-For`, `-Port` and `-Proto` in the headers of a call, in place of any that are there.
/// `forwarded_for` lists the addresses on the client's way, the source first. `port` is the port that the client
/// connected to, or 0 if it is not known. `secure` is true if the client used TLS.
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

/// Sets the same headers as [`write_forwarded`] for `connection`.
pub(super) fn write_forwarded_of(headers: &mut HeaderMap, connection: &Connection) {
    match &connection.forwarded_for {
        Some(forwarded_for) => write_forwarded(headers, forwarded_for, connection.port, connection.secure),
        None => write_forwarded(headers, &connection.source_ip.to_string(), connection.port, connection.secure),
    }
}
