//! The host of a request: from its Host header, or from its target if that is a whole URL, as clients send it to a
//! proxy.
//!
//! Source: RFC 9112, section 3.2; RFC 9110, section 4.2.4.

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Uri};

const NO_HOST: &str = "the request needs one valid Host header";
const NO_TARGET: &str = "the request target must be a path, or an http or https URL without a user";

/// Returns the host of a request. A target that is a whole URL becomes a path, and its host replaces the Host header,
/// so that all later code sees only one host. A Host header that names the same host in another spelling stays, because
/// the caller has signed it.
///
/// # Errors
/// Returns the text for the caller if there is not exactly one valid Host header, which a whole URL needs too, or if
/// the target is neither a path nor an `http` or `https` URL without a user.
pub fn take_host(uri: &mut Uri, headers: &mut HeaderMap) -> Result<String, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (_, Some(_)) | (None, None) => None,
    };
    let host = host.ok_or(NO_HOST)?;
    let named = host.parse::<Authority>().ok().filter(has_no_user).ok_or(NO_HOST)?;
    let (scheme, authority) = match (uri.scheme(), uri.authority()) {
        (None, None) => return Ok(host.to_owned()),
        (Some(scheme), Some(authority)) => (scheme, authority),
        (_, _) => return Err(NO_TARGET),
    };
    let default_port = default_port(scheme).ok_or(NO_TARGET)?;
    if !has_no_user(authority) || authority.host().is_empty() {
        return Err(NO_TARGET);
    }
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    let is_same = named.host().eq_ignore_ascii_case(authority.host()) && port(&named) == port(authority);
    let host = if is_same { host.to_owned() } else { authority.as_str().to_owned() };
    let value = HeaderValue::from_str(&host).map_err(|_| NO_TARGET)?;
    let path = uri.path_and_query().cloned().ok_or(NO_TARGET)?;
    *uri = Uri::from(path);
    headers.insert(HOST, value);
    Ok(host)
}

/// Returns true if `authority` has no user name, which would end up in callback URLs.
fn has_no_user(authority: &Authority) -> bool {
    !authority.as_str().contains('@')
}

/// Returns the port that a URL of this scheme has if it names none. Only HTTP and HTTPS are supported.
fn default_port(scheme: &Scheme) -> Option<u16> {
    if *scheme == Scheme::HTTP {
        Some(80)
    } else if *scheme == Scheme::HTTPS {
        Some(443)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the host and the target that a request with `target` and the Host headers `hosts` ends up with, if it is
    /// accepted.
    fn taken(target: &str, hosts: &[&str]) -> Option<(String, String)> {
        let mut uri: Uri = target.parse().expect("a target");
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).expect("a value"));
        }
        let host = take_host(&mut uri, &mut headers).ok()?;
        let values: Vec<&HeaderValue> = headers.get_all(HOST).iter().collect();
        assert_eq!(values, [&*host], "one Host, and it is the one that counts");
        Some((host, uri.to_string()))
    }

    #[test]
    fn the_host_is_the_targets_where_it_has_one() {
        let check = |target: &str, host: &str, expected: (&str, &str)| {
            let expected = Some((expected.0.to_owned(), expected.1.to_owned()));
            assert_eq!(taken(target, &[host]), expected, "{target} {host}");
        };
        check("/prod?a=b", "a:81", ("a:81", "/prod?a=b"));
        check("http://a/prod?a=b", "a", ("a", "/prod?a=b"));
        check("http://a", "a", ("a", "/"));
        check("http://a?b", "a", ("a", "/?b"));
        check("http://b:81/prod", "a", ("b:81", "/prod"));
        check("http://[::1]:81/prod", "a", ("[::1]:81", "/prod"));
        check("HTTPS://b/prod", "a", ("b", "/prod"));
        check("http://A/prod", "a", ("a", "/prod"));
        check("http://a:80/prod", "a", ("a", "/prod"));
        check("http://a/prod", "a:80", ("a:80", "/prod"));
        check("https://a:443/prod", "a", ("a", "/prod"));
        check("https://a:80/prod", "a", ("a:80", "/prod"));
        check("http://a/prod//x%3D", "a", ("a", "/prod//x%3D"));
    }

    #[test]
    fn what_names_no_host_or_two_is_refused() {
        for target in ["/prod", "http://a/prod"] {
            for hosts in [&[][..], &["a", "a"], &[""], &["a b"], &["me@a"], &["a/b"], &["a, b"]] {
                assert_eq!(taken(target, hosts), None, "{target} {hosts:?}");
            }
        }
        for target in ["http://me@a/", "http://me:pass@a/", "ftp://a/", "ws://a/", "a:80", "a"] {
            assert_eq!(taken(target, &["a"]), None, "{target}");
        }
    }
}
