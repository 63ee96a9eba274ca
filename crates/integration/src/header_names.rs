use std::borrow::Cow;

use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use tidegate_language::expression::header_key;

/// Names that browsers and AWS do not write in `Title-Case`. `content-length` is only in the events of authorizers, as
/// with AWS; a client's own is never shown.
const SPELLINGS: [(&str, &str); 9] = [
    ("content-length", "content-length"),
    ("dnt", "DNT"),
    ("sec-websocket-accept", "Sec-WebSocket-Accept"),
    ("sec-websocket-extensions", "Sec-WebSocket-Extensions"),
    ("sec-websocket-key", "Sec-WebSocket-Key"),
    ("sec-websocket-protocol", "Sec-WebSocket-Protocol"),
    ("sec-websocket-version", "Sec-WebSocket-Version"),
    ("x-api-key", "x-api-key"),
    ("x-requested-with", "X-Requested-With"),
];

/// Returns a header name as browsers write it: `User-Agent`, `Sec-WebSocket-Key`.
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

/// Hop-by-hop headers, in addition to those that `Connection` lists.
///
/// Source: RFC 9110, section 7.6.1, and RFC 9113, section 8.2.2.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that the gateway sets itself before a backend gets them, or has read and accepted from the client.
const OWN: [&str; 5] = ["host", "x-amzn-trace-id", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"];

/// Headers of a client that no backend gets. In most of them a proxy states where a request came from (address,
/// certificate), what it was (scheme, host, port, path, method) or how to answer through it. Only the gateway reads or
/// writes the others. Sorted.
const WITHHELD: [&str; 36] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "cf-visitor",
    "client-ip",
    "cloudfront-forwarded-proto",
    "cloudfront-viewer-address",
    "content-length",
    "expect",
    "fastly-client-ip",
    "fastly-ssl",
    "fly-client-ip",
    "front-end-https",
    "proxy",
    "true-client-ip",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "wl-proxy-client-ip",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-dn",
    "x-client-ip",
    "x-client-verify",
    "x-cluster-client-ip",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-originating-ip",
    "x-remote-ip",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];

/// Prefixes of the names of more such headers.
const WITHHELD_PREFIXES: [&str; 15] = [
    "client-cert",
    "forwarded",
    "proxy-",
    "ssl-client-",
    "x-accel-",
    "x-amzn-",
    "x-arr-",
    "x-client-cert",
    "x-envoy-",
    "x-forwarded",
    "x-original-",
    "x-real-",
    "x-sendfile-",
    "x-ssl-",
    "x-tidegate-",
];

/// Removes the hop-by-hop headers: those with fixed names, and those that `Connection` lists.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let lists = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    let names = lists.flat_map(|list| list.split(|byte| *byte == b','));
    let listed: Vec<HeaderName> = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect();
    listed.iter().for_each(|name| _ = headers.remove(name));
    HOP_BY_HOP.iter().for_each(|name| _ = headers.remove(*name));
}

/// Returns true if a client's header is shown in events.
pub(super) fn is_shown(name: &HeaderName) -> bool {
    match header_key(name.as_str()) {
        Cow::Borrowed(name) => OWN.contains(&name) || !is_withheld(name),
        // Some backends read the name as `key`.
        Cow::Owned(key) => !OWN.contains(&&*key) && !is_withheld(&key),
    }
}

/// Returns true if a client's header is passed to an HTTP backend: it is shown in events, no backend reads its name as
/// another, and it does not describe the gateway's address or the body of the client's request.
pub(super) fn is_passed(name: &HeaderName) -> bool {
    let is_plain = matches!(header_key(name.as_str()), Cow::Borrowed(_));
    is_plain && *name != HOST && !name.as_str().starts_with("content-") && is_shown(name)
}

fn is_withheld(name: &str) -> bool {
    WITHHELD.binary_search(&name).is_ok() || WITHHELD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
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
        check("content-length", "content-length");
        assert!(SPELLINGS.is_sorted());
    }

    #[test]
    fn what_belongs_to_one_connection_is_removed_by_rule() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-One ,, x two"),
            ("connection", "x-three"),
            ("x-one", "1"),
            ("x-one", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "websocket"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-four"]);
    }

    #[test]
    fn no_client_speaks_where_a_proxy_would() {
        assert!(WITHHELD.is_sorted() && WITHHELD_PREFIXES.is_sorted());
        let check = |name: &'static str, expected: (bool, bool)| {
            let name = HeaderName::from_static(name);
            assert_eq!((is_shown(&name), is_passed(&name)), expected, "{name}");
        };
        for name in ["accept", "authorization", "cookie", "origin", "x-api-key", "x-amz-date", "x-forwarded-for"] {
            check(name, (true, true));
        }
        // JSON keeps names apart that are the same in CGI.
        for name in ["x_user", "x.user", "host", "content-type", "content-encoding"] {
            check(name, (true, false));
        }
        for name in [
            "forwarded",
            "content-length",
            "expect",
            "proxy",
            "x-real-ip",
            "x_real_ip",
            "x-forwarded-host",
            "x-forwarded-client-cert",
            "x_forwarded_for",
            "x.forwarded.proto",
            "x-original-url",
            "x-http-method-override",
            "client-cert-chain",
            "x-amzn-mtls-clientcert",
            "x-tidegate-user",
            "x_tidegate_user",
            "webhook-signature",
            "webhook_id",
        ] {
            check(name, (false, false));
        }
    }
}
