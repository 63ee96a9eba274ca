use http::HeaderName;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Names that `Title-Case` would spell otherwise than browsers and AWS do.
const SPELLINGS: [(&str, &str); 8] = [
    ("dnt", "DNT"),
    ("sec-websocket-accept", "Sec-WebSocket-Accept"),
    ("sec-websocket-extensions", "Sec-WebSocket-Extensions"),
    ("sec-websocket-key", "Sec-WebSocket-Key"),
    ("sec-websocket-protocol", "Sec-WebSocket-Protocol"),
    ("sec-websocket-version", "Sec-WebSocket-Version"),
    ("x-api-key", "x-api-key"),
    ("x-requested-with", "X-Requested-With"),
];

/// A header name as browsers write it: `User-Agent`, `Sec-WebSocket-Key`.
pub(super) fn spelling(name: &HeaderName) -> String {
    if let Ok(index) = SPELLINGS.binary_search_by_key(&name.as_str(), |(lower, _)| lower) {
        return SPELLINGS[index].1.to_owned();
    }
    let mut start = true;
    let title_case = |c: char| {
        let c = if start { c.to_ascii_uppercase() } else { c };
        start = c == '-';
        c
    };
    name.as_str().chars().map(title_case).collect()
}

/// Whether a header belongs to one connection and is never passed on.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Whether a client's header is kept from an HTTP backend: it is the connection's, or only the gateway may set it.
pub(super) fn is_withheld(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || [HOST, CONTENT_LENGTH].contains(name)
        || name.as_str().starts_with("x-tidegate-")
        || matches!(name.as_str(), "webhook-id" | "webhook-timestamp" | "webhook-signature")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_browsers_write_them() {
        let check = |lower: &'static str, expected| assert_eq!(spelling(&HeaderName::from_static(lower)), expected);
        check("host", "Host");
        check("user-agent", "User-Agent");
        check("sec-websocket-key", "Sec-WebSocket-Key");
        check("sec-fetch-mode", "Sec-Fetch-Mode");
        check("x-api-key", "x-api-key");
        check("x-forwarded-for", "X-Forwarded-For");
        check("x-amzn-trace-id", "X-Amzn-Trace-Id");
        check("cookie", "Cookie");
        assert!(SPELLINGS.is_sorted());
    }
}
