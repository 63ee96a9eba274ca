use http::HeaderMap;
use http::header::ORIGIN;
use thiserror::Error;

/// The web pages that may open connections, by the `Origin` that browsers send. Clients that are not browsers send no
/// `Origin` and are always allowed.
#[derive(Clone, Debug, Default)]
pub struct AllowedOrigins(Option<Vec<OriginPattern>>);

/// A pattern of origins: `https://example.com`, `https://example.com:8443` or `https://*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OriginPattern {
    /// Scheme, with `://`.
    scheme: String,
    /// Host, without the `*` if `is_parent`.
    host: String,
    is_parent: bool,
    /// Port, with its colon; empty for the scheme's default port.
    port: String,
}

/// The reason why a page may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OriginError {
    #[error("the request has several Origin headers")]
    Several,
    #[error("the Origin is `null`, which cannot be allowed")]
    Null,
    #[error("the Origin is not written as browsers write it")]
    Malformed,
    #[error("the Origin is not one that this API allows")]
    NotAllowed,
}

impl AllowedOrigins {
    /// Parses a list of origins; without a list every origin is allowed.
    ///
    /// # Errors
    /// Returns the position of each entry that is not an origin.
    pub fn parse(origins: Option<&[String]>) -> Result<Self, Vec<usize>> {
        let Some(origins) = origins else { return Ok(AllowedOrigins(None)) };
        let parsed: Vec<Option<OriginPattern>> = origins.iter().map(|text| OriginPattern::parse(text)).collect();
        let wrong: Vec<usize> = (0..parsed.len()).filter(|index| parsed[*index].is_none()).collect();
        if wrong.is_empty() { Ok(AllowedOrigins(Some(parsed.into_iter().flatten().collect()))) } else { Err(wrong) }
    }

    /// Returns true if there is a list.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Checks the headers of an upgrade request.
    ///
    /// # Errors
    /// Returns an [`OriginError`] if a page that is not allowed sent the request.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), OriginError> {
        let Some(patterns) = &self.0 else { return Ok(()) };
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(()) };
        if origins.next().is_some() {
            return Err(OriginError::Several);
        }
        let origin = origin.to_str().map_err(|_| OriginError::Malformed)?;
        if origin == "null" {
            return Err(OriginError::Null);
        }
        // Browsers write scheme and host in lower case and leave out the scheme's default port.
        let origin = Origin::parse(origin).ok_or(OriginError::Malformed)?;
        if patterns.iter().any(|pattern| pattern.matches(&origin)) { Ok(()) } else { Err(OriginError::NotAllowed) }
    }
}

struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: &'a str,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let scheme_end = text.find("://")? + 3;
        let (scheme, rest) = text.split_at(scheme_end);
        let host_end = if rest.starts_with('[') { rest.find(']')? + 1 } else { rest.find(':').unwrap_or(rest.len()) };
        let (host, port) = rest.split_at(host_end);
        let is_port = |port: &str| port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port_is_right = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        let default_port = matches!((scheme, port), ("https://", ":443") | ("http://", ":80"));
        let is_host_byte =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'[' | b']' | b':');
        let is_scheme_byte = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.');
        let scheme_is_right = scheme.len() > 3 && scheme[..scheme.len() - 3].bytes().all(is_scheme_byte);
        let host_is_right = !host.is_empty() && host.bytes().all(is_host_byte);
        (scheme_is_right && host_is_right && port_is_right && !default_port).then_some(Origin { scheme, host, port })
    }
}

impl OriginPattern {
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let is_parent = lower.contains("://*.");
        let plain = lower.replacen("://*.", "://", 1);
        let plain = match plain.split_once("://") {
            Some(("https", rest)) => format!("https://{}", rest.strip_suffix(":443").unwrap_or(rest)),
            Some(("http", rest)) => format!("http://{}", rest.strip_suffix(":80").unwrap_or(rest)),
            _ => plain,
        };
        let Origin { scheme, host, port } = Origin::parse(&plain)?;
        if is_parent && !host.contains('.') {
            return None;
        }
        Some(OriginPattern { scheme: scheme.to_owned(), host: host.to_owned(), is_parent, port: port.to_owned() })
    }

    fn matches(&self, origin: &Origin<'_>) -> bool {
        let host_matches = match self.is_parent {
            true => {
                let label = origin.host.strip_suffix(&self.host).and_then(|rest| rest.strip_suffix('.'));
                label.is_some_and(|label| !label.is_empty())
            }
            false => origin.host == self.host,
        };
        host_matches && self.scheme == origin.scheme && self.port == origin.port
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_listed_pages_may_connect() {
        let list = ["https://example.com", "https://*.Example.com:443", "http://localhost:3000"].map(str::to_owned);
        let allowed = AllowedOrigins::parse(Some(&list)).expect("origins");
        let check = |origins: &[&'static str], expected: Result<(), OriginError>| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(allowed.check(&headers), expected, "{origins:?}");
        };
        check(&[], Ok(()));
        check(&["https://example.com"], Ok(()));
        check(&["https://a.example.com"], Ok(()));
        check(&["https://a.b.example.com"], Ok(()));
        check(&["http://localhost:3000"], Ok(()));
        check(&["null"], Err(OriginError::Null));
        check(&["https://example.com", "https://example.com"], Err(OriginError::Several));
        check(&["https://example.com.evil.test"], Err(OriginError::NotAllowed));
        check(&["https://evilexample.com"], Err(OriginError::NotAllowed));
        check(&["https://.example.com"], Err(OriginError::NotAllowed));
        check(&["http://example.com"], Err(OriginError::NotAllowed));
        check(&["https://example.com:8443"], Err(OriginError::NotAllowed));
        check(&["http://localhost"], Err(OriginError::NotAllowed));
        check(&["https://example.com:443"], Err(OriginError::Malformed));
        check(&["HTTPS://EXAMPLE.COM"], Err(OriginError::Malformed));
        check(&["https://EXAMPLE.com"], Err(OriginError::Malformed));
        check(&["https://example.com/"], Err(OriginError::Malformed));
        check(&["https://a@example.com"], Err(OriginError::Malformed));
        check(&["example.com"], Err(OriginError::Malformed));
        check(&[""], Err(OriginError::Malformed));
    }

    #[test]
    fn mistakes_are_named_by_their_position() {
        let parse = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
            AllowedOrigins::parse(Some(&list)).err().unwrap_or_default()
        };
        assert_eq!(parse(&["https://a.test", "example.com", "*", "https://*", "https://*.com"]), [1, 2, 3, 4]);
        assert_eq!(parse(&["https://a.test/x", "https://a.test:x"]), [0, 1]);
        assert!(AllowedOrigins::parse(None).is_ok_and(|origins| !origins.is_set()));
    }
}
