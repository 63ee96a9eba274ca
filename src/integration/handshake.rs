use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::header_names::is_shown;
use crate::expression::{count_headers, count_parameters};
use crate::trace_context::{TraceContext, X_AMZN_TRACE_ID};

/// What a client sent with its upgrade request.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The client's headers without those of its connection alone; `Host` and `X-Forwarded-For`, `-Port` and `-Proto`
    /// are the gateway's. Backends see a part of them.
    pub headers: HeaderMap,
    /// The raw query string, if the URL had one.
    pub query: Option<String>,
}

impl Handshake {
    /// What a client sent.
    pub fn new(headers: HeaderMap, query: Option<String>) -> Self {
        Handshake { headers, query }
    }

    /// The trace that the client has begun, if it has.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of_headers(&self.headers)
    }

    /// Puts the trace that its event is part of among its headers, as AWS does, unless the client named one there.
    pub fn name_trace(&mut self, trace: TraceContext) {
        if !self.headers.contains_key(X_AMZN_TRACE_ID)
            && let Ok(root) = HeaderValue::from_str(&trace.root().to_string())
        {
            self.headers.insert(X_AMZN_TRACE_ID, root);
        }
    }

    /// Decoded query parameters in their order.
    pub fn query_parameters(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        url::form_urlencoded::parse(self.query.as_deref().unwrap_or_default().as_bytes())
    }

    /// The values of one query parameter.
    pub fn query_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        self.query_parameters().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// The values of one header; bytes that are not UTF-8 become U+FFFD.
    pub fn header_values(&self, name: &HeaderName) -> Vec<Cow<'_, str>> {
        self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
    }

    /// Tells whether several headers can be read under this name: which one counts would be the reader's choice.
    pub fn repeats_header(&self, name: &HeaderName) -> bool {
        count_headers(&self.headers, name) > 1
    }

    /// Tells whether several query parameters can be read under this name.
    pub fn repeats_parameter(&self, name: &str) -> bool {
        self.query.as_deref().is_some_and(|query| count_parameters(query, name) > 1)
    }

    /// Copies the headers that events show.
    pub(super) fn shown_headers(&self) -> HeaderMap {
        let shown = self.headers.iter().filter(|(name, _)| is_shown(name));
        shown.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Query parameters by name.
    pub(super) fn query_map(&self) -> BTreeMap<String, Vec<String>> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in self.query_parameters() {
            map.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        map
    }
}
