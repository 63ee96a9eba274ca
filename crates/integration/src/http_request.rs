use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Payload;
use super::call::IntegrationRequest;
use super::forwarded::write_forwarded_of;
use super::header_names::is_passed;
use tidegate_core::json::is_json;
use tidegate_language::expression::{Destination, Source, TakenNames};

const X_AMZN_APIGATEWAY_API_ID: HeaderName = HeaderName::from_static("x-amzn-apigateway-api-id");

/// The part of an `HTTP_PROXY` call that is made from the event itself.
///
/// Differs from AWS: a message that is not JSON does not get the type `application/json`.
pub(super) struct HttpRequest {
    pub(super) path_and_query: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// True if a parameter was left out because its source had no value, or one that a header cannot hold.
    pub(super) left_out: bool,
}

/// Builds the request: the client's headers and query string for `$connect`, the message's bytes otherwise; always the
/// `X-Forwarded-*` headers of the connection and the mapped `requestParameters`. A parameter whose source has no value
/// that fits is left out. A header or query parameter that the client sent under one of the `taken` names is never
/// passed on.
pub(super) fn http_request(
    path_and_query: &PathAndQuery,
    parameters: &[(Destination, Source)],
    taken: &TakenNames,
    sources: &IntegrationRequest<'_>,
) -> HttpRequest {
    let connection = sources.context.connection;
    let mut headers = HeaderMap::with_capacity(32);
    let mut query = path_and_query.query().unwrap_or_default().to_owned();
    if let Some(handshake) = sources.handshake {
        let is_left = |name: &HeaderName| is_passed(name) && !taken.has_header(name);
        for (name, value) in handshake.headers.iter().filter(|(name, _)| is_left(name)) {
            headers.append(name.clone(), value.clone());
        }
        append(&mut query, &taken.remove_parameters(handshake.query.as_deref().unwrap_or_default()));
    } else if let Some(user_agent) = connection.user_agent.as_deref().filter(|_| !taken.has_header(&USER_AGENT))
        && let Ok(user_agent) = HeaderValue::from_str(user_agent)
    {
        headers.insert(USER_AGENT, user_agent);
    }
    write_forwarded_of(&mut headers, connection);
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
            Destination::Header(name) => match HeaderValue::from_str(&value) {
                Ok(value) => _ = headers.insert(name, value),
                Err(_) => left_out = true,
            },
            Destination::QueryString(name) => {
                let pair = url::form_urlencoded::Serializer::new(String::new()).append_pair(name, &value).finish();
                append(&mut query, &pair);
            }
        }
    }
    let path_and_query = match path_and_query.query().unwrap_or_default() == query {
        true => path_and_query.clone(),
        // This fails only if the query string is too long, since the client's was part of a URL and the pairs are
        // encoded. Then it is left out.
        false => format!("{}?{query}", path_and_query.path()).parse().unwrap_or_else(|_| {
            left_out = true;
            path_and_query.clone()
        }),
    };
    HttpRequest { path_and_query, headers, body, left_out }
}

fn append(query: &mut String, more: &str) {
    if !query.is_empty() && !more.is_empty() {
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

impl IntegrationRequest<'_> {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Handshake;
    use tidegate_core::clock::Timestamp;
    use tidegate_core::id::{ConnectionId, EventId, NodeId};
    use tidegate_core::request_context::{Connection, Event, RequestContext};
    use tidegate_language::expression::header_key;

    /// Builds the request of an integration with `parameters` for a client that connects with the headers `names`, all
    /// with the value `c`, and the query string `query`.
    fn call(parameters: &[(Destination, Source)], names: &[String], query: &str) -> HttpRequest {
        let connection = Connection::sample(ConnectionId::random(NodeId::random()));
        let context = RequestContext {
            connection: &connection,
            principal: None,
            event: Event::Connect,
            route_key: "$connect",
            request_id: EventId::random(),
            request_time: Timestamp(0),
            domain_name: "localhost",
            callback_url: String::new(),
            trace: None,
        };
        let names = names.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let headers = names.map(|name| (name, HeaderValue::from_static("c"))).collect();
        let handshake = Handshake::new(headers, Some(query.to_owned()));
        let (variables, payload) = (BTreeMap::new(), Payload::Empty);
        let sources = IntegrationRequest {
            context: &context,
            stage_variables: &variables,
            handshake: Some(&handshake),
            payload: &payload,
        };
        let own = PathAndQuery::from_static("/hook?own=1");
        let taken = TakenNames::new(own.query(), parameters.iter().map(|(destination, _)| destination));
        http_request(&own, parameters, &taken, &sources)
    }

    fn parameters() -> Vec<(Destination, Source)> {
        let parse = |to: &str| Destination::parse(&format!("integration.request.{to}")).expect("a destination");
        let nobody = Source::Context("authorizer.principalId".to_owned());
        ["header.x-user", "header.user_agent", "querystring.user"].map(|to| (parse(to), nobody.clone())).into()
    }

    #[test]
    fn a_query_string_that_gets_too_long_is_left_out_and_said_so() {
        let long = Source::Literal("x".repeat(70_000));
        let parameters = [(Destination::QueryString("long".to_owned()), long)];
        let request = call(&parameters, &[], "a=1");
        assert_eq!((request.path_and_query.as_str(), request.left_out), ("/hook?own=1", true));
    }

    proptest! {
        #[test]
        fn no_client_gets_a_header_through_that_is_not_its_own(
            names in prop::collection::vec(
                "(x[-_.])?(user|tidegate|forwarded|real|webhook|host|content|amzn|a)([-_.](for|agent|ip|id|proto|length|b))?",
                0..12
            ),
            query in "(&|;|=|user|USER|own|%6fwn|\\[\\]|a){0,10}",
        ) {
            let request = call(&parameters(), &names, &query);
            for (name, _) in request.headers.iter().filter(|(_, value)| *value == "c") {
                let name = name.as_str();
                prop_assert_eq!(header_key(name), name);
                let is_gateways = ["x-tidegate", "x-forwarded", "forwarded", "webhook-id", "content-", "x-real-", "x-amzn-"];
                let is_gateways = is_gateways.iter().any(|prefix| name.starts_with(prefix) && name != "x-tidegate");
                prop_assert!(!is_gateways && !["x-user", "user-agent", "host"].contains(&name), "{}", name);
            }
            let query = request.path_and_query.query().unwrap_or_default();
            let clients = query.strip_prefix("own=1").expect("the integration's own");
            let count = |name| tidegate_language::expression::count_parameters(clients, name);
            prop_assert_eq!(count("own") + count("user"), 0, "{}", clients);
        }
    }
}
