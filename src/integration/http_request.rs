use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Handshake;
use super::client::Payload;
use super::header_names::is_withheld;
use crate::expression::{Destination, Source};
use crate::json::is_json;
use crate::request_context::RequestContext;

const X_AMZN_APIGATEWAY_API_ID: HeaderName = HeaderName::from_static("x-amzn-apigateway-api-id");

/// The part of an `HTTP_PROXY` call that is made from the event itself.
///
/// Differs from AWS: a message that is not JSON is not called `application/json`.
pub(super) struct HttpRequest {
    pub(super) path_and_query: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The source of a parameter had no value.
    pub(super) left_out: bool,
}

/// What request parameters may be mapped from.
pub(super) struct Sources<'a> {
    pub(super) context: &'a RequestContext<'a>,
    pub(super) stage_variables: &'a BTreeMap<String, String>,
    pub(super) handshake: Option<&'a Handshake>,
    pub(super) payload: &'a Payload,
}

/// Builds the request: the client's headers and query string for `$connect`, the message's bytes otherwise, and what
/// `requestParameters` map. A source that has no value leaves its parameter out.
pub(super) fn http_request(
    path_and_query: &PathAndQuery,
    parameters: &[(Destination, Source)],
    sources: &Sources<'_>,
) -> HttpRequest {
    let connection = sources.context.connection;
    let mut headers = HeaderMap::with_capacity(32);
    let mut query = path_and_query.query().unwrap_or_default().to_owned();
    if let Some(handshake) = sources.handshake {
        for (name, value) in handshake.headers.iter().filter(|(name, _)| !is_withheld(name)) {
            headers.append(name.clone(), value.clone());
        }
        if let Some(client_query) = handshake.query.as_deref().filter(|client_query| !client_query.is_empty()) {
            append(&mut query, client_query);
        }
    } else if let Some(user_agent) =
        connection.user_agent.as_deref().and_then(|agent| HeaderValue::from_str(agent).ok())
    {
        headers.insert(USER_AGENT, user_agent);
    }
    if let Ok(api_id) = HeaderValue::from_str(&connection.api_id) {
        headers.insert(X_AMZN_APIGATEWAY_API_ID, api_id);
    }
    let body = sources.payload.bytes();
    if let Some(content_type) = content_type(sources.payload) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    let mut left_out = false;
    for (destination, source) in parameters {
        let Some(value) = sources.value(source) else {
            left_out = true;
            continue;
        };
        match destination {
            Destination::Header(name) => {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(name, value);
                }
            }
            Destination::QueryString(name) => {
                let pair = url::form_urlencoded::Serializer::new(String::new()).append_pair(name, &value).finish();
                append(&mut query, &pair);
            }
        }
    }
    let path_and_query = match path_and_query.query().unwrap_or_default() == query {
        true => path_and_query.clone(),
        // The client's query string was part of a URL, and the pairs are encoded; should it not fit, it is left out.
        false => format!("{}?{query}", path_and_query.path()).parse().unwrap_or_else(|_| path_and_query.clone()),
    };
    HttpRequest { path_and_query, headers, body, left_out }
}

fn append(query: &mut String, more: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(more);
}

fn content_type(payload: &Payload) -> Option<HeaderValue> {
    Some(HeaderValue::from_static(match payload {
        Payload::Empty => return None,
        Payload::Text(text) if is_json(text) => "application/json",
        Payload::Text(_) => "text/plain; charset=utf-8",
        Payload::Binary(_) => "application/octet-stream",
    }))
}

impl Sources<'_> {
    fn value(&self, source: &Source) -> Option<Cow<'_, str>> {
        let last = |values: Vec<Cow<'_, str>>| values.last().map(|value| Cow::Owned(value.to_string()));
        let all = |values: Vec<Cow<'_, str>>| if values.is_empty() { None } else { Some(Cow::Owned(values.join(","))) };
        match source {
            Source::QueryString(name) => last(self.handshake?.query_values(name)),
            Source::Header(name) => last(self.handshake?.header_values(name)),
            Source::MultiValueQueryString(name) => all(self.handshake?.query_values(name)),
            Source::MultiValueHeader(name) => all(self.handshake?.header_values(name)),
            Source::Body(path) => match self.payload {
                Payload::Text(text) => path.evaluate(text).map(|value| Cow::Owned(value.into_owned())),
                Payload::Empty | Payload::Binary(_) => None,
            },
            Source::Context(name) => self.context.variable(name),
            Source::StageVariable(name) => self.stage_variables.get(name).map(|value| Cow::Borrowed(value.as_str())),
            Source::Literal(text) => Some(Cow::Owned(text.clone())),
        }
    }
}
