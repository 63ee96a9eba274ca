//! Detection of calls that a browser makes on behalf of a web page. A browser reaches whatever its user's machine
//! reaches, so an unsigned call proves nothing if a page may have made it.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName, Method, Request};

use tidegate_gateway::data_plane::RoutingError;

/// The relation between a page that makes a browser send a request and the server that gets it.
///
/// Source: W3C, "Fetch Metadata Request Headers".
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks that an unsigned call that changes something does not come from a web page. No page is allowed, because the
/// gateway serves none. Programs send neither `Origin` nor `Sec-Fetch-Site`.
///
/// # Errors
/// Returns [`RoutingError::FromPage`] if a web page made the call.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), RoutingError> {
    match writes(request.method()) && is_of_page(request.headers()) {
        true => Err(RoutingError::FromPage),
        false => Ok(()),
    }
}

fn writes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Returns true if the headers are those of a browser that acts for a page. Browsers send `Origin`, even as `null`,
/// with every request that is not a GET or HEAD. `Sec-Fetch-Site` covers those that leave it out; requests of the user
/// and of the same origin are harmless.
fn is_of_page(headers: &HeaderMap) -> bool {
    let is_foreign = |site: &[u8]| !matches!(site, b"none" | b"same-origin");
    headers.contains_key(ORIGIN) || headers.get_all(SEC_FETCH_SITE).iter().any(|site| is_foreign(site.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_change_something_may_not_come_from_a_page() {
        let check = |method: &str, headers: &[(&str, &str)], expected: bool| {
            let mut request = Request::builder().method(method).uri("/");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(()).expect("a request");
            assert_eq!(check(&request).is_ok(), expected, "{method} {headers:?}");
        };
        for method in ["POST", "PUT", "DELETE", "PATCH", "PURGE"] {
            check(method, &[], true);
            check(method, &[("sec-fetch-mode", "cors")], true);
            check(method, &[("sec-fetch-site", "none")], true);
            check(method, &[("sec-fetch-site", "same-origin")], true);
            check(method, &[("origin", "http://127.0.0.1:9000")], false);
            check(method, &[("origin", "null")], false);
            check(method, &[("origin", "")], false);
            check(method, &[("sec-fetch-site", "cross-site")], false);
            check(method, &[("sec-fetch-site", "same-site")], false);
            check(method, &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], false);
        }
        for method in ["GET", "HEAD", "OPTIONS"] {
            check(method, &[("origin", "http://evil.test"), ("sec-fetch-site", "cross-site")], true);
        }
    }
}
