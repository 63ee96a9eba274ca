use std::borrow::Cow;
use std::collections::BTreeMap;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::header_names::is_shown;
use tidegate_core::trace_context::{TraceContext, X_AMZN_TRACE_ID};
use tidegate_language::expression::{count_headers, count_parameters};

/// The headers and query string of a client's upgrade request.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The client's headers without the hop-by-hop ones. `Host` and `X-Forwarded-For`, `-Port` and `-Proto` are set by
    /// the gateway. Backends see some of these headers.
    pub headers: HeaderMap,
    /// The raw query string, if the URL had one.
    pub query: Option<String>,
}

impl Handshake {
    /// Returns the handshake with these headers and this raw query string.
    pub fn new(headers: HeaderMap, query: Option<String>) -> Self {
        Handshake { headers, query }
    }

    /// Returns the trace that the client has begun, if there is one.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of_headers(&self.headers)
    }

    /// Adds `X-Amzn-Trace-Id` with `trace` to the headers, as AWS does, unless the client sent one.
    pub fn name_trace(&mut self, trace: TraceContext) {
        if !self.headers.contains_key(X_AMZN_TRACE_ID)
            && let Ok(root) = HeaderValue::from_str(&trace.root().to_string())
        {
            self.headers.insert(X_AMZN_TRACE_ID, root);
        }
    }

    /// Returns the decoded query parameters in their order.
    pub fn query_parameters(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        url::form_urlencoded::parse(self.query.as_deref().unwrap_or_default().as_bytes())
    }

    /// Returns the values of one query parameter.
    pub fn query_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        self.query_parameters().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// Returns the values of one header. Bytes that are not UTF-8 become U+FFFD.
    pub fn header_values(&self, name: &HeaderName) -> Vec<Cow<'_, str>> {
        self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
    }

    /// Returns true if several headers can be read under this name, so that readers could disagree about the value.
    pub fn repeats_header(&self, name: &HeaderName) -> bool {
        count_headers(&self.headers, name) > 1
    }

    /// Returns true if several query parameters can be read under this name.
    pub fn repeats_parameter(&self, name: &str) -> bool {
        self.query.as_deref().is_some_and(|query| count_parameters(query, name) > 1)
    }

    /// Returns the subprotocol that a backend chose in `answer`, if the client offered it. Any other value is ignored,
    /// since it would make the client fail the connection (RFC 6455, section 4.1).
    pub fn subprotocol(&self, answer: &HeaderMap) -> Option<HeaderValue> {
        let mut chosen = answer.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let chosen = chosen.next().filter(|_| chosen.next().is_none())?;
        let offers = self.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().map(HeaderValue::as_bytes);
        let mut offers = offers.flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let is_offered = offers.any(|offer| !offer.is_empty() && offer == chosen.as_bytes());
        is_offered.then(|| chosen.clone())
    }

    /// Returns a copy of the headers that events show.
    pub(super) fn shown_headers(&self) -> HeaderMap {
        let shown = self.headers.iter().filter(|(name, _)| is_shown(name));
        shown.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Returns the query parameters by name.
    pub(super) fn query_map(&self) -> BTreeMap<String, Vec<String>> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in self.query_parameters() {
            map.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocols(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_subprotocol_is_one_that_the_client_offered() {
        let handshake = Handshake::new(protocols(&["chat.v2, chat.v1"]), None);
        let check = |chosen: &[&'static str], expected: Option<&'static str>| {
            assert_eq!(handshake.subprotocol(&protocols(chosen)), expected.map(HeaderValue::from_static), "{chosen:?}");
        };
        check(&[], None);
        check(&["chat.v1"], Some("chat.v1"));
        check(&["chat.v2"], Some("chat.v2"));
        check(&[""], None);
        check(&["chat.v3"], None);
        check(&["Chat.v1"], None);
        check(&["chat.v2, chat.v1"], None);
        check(&["chat.v2", "chat.v1"], None);
        check(&["chat.v2", ""], None);
        let handshake = Handshake::new(HeaderMap::new(), None);
        assert_eq!(handshake.subprotocol(&protocols(&["chat.v1"])), None);
    }
}
