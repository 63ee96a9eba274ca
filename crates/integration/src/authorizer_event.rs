use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::Handshake;
use super::context_headers::add_context_headers;
use super::proxy_event::{EventContext, EventHeaders, MultiValues, SingleValues, event_context, last_values};
use tidegate_core::request_context::RequestContext;

/// Headers and body of a call to a REQUEST authorizer.
#[derive(Clone, Debug)]
pub struct AuthorizerRequest {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Builds the request to a REQUEST authorizer: the client's headers and query string, and the `requestContext` of the
/// `$connect` event without `authorizer`. Empty maps are sent too. The headers are those that backends see, and the
/// `judged` ones, which are the authorizer's identity sources.
///
/// Source: AWS, "Create an API Gateway Lambda REQUEST authorizer", for WebSocket APIs.
pub fn authorizer_request<'a>(
    context: &RequestContext<'_>,
    stage_variables: &BTreeMap<String, String>,
    handshake: &Handshake,
    judged: impl IntoIterator<Item = &'a HeaderName>,
    method_arn: &str,
) -> AuthorizerRequest {
    let mut client_headers = handshake.shown_headers();
    for name in judged {
        // An identity source occurs once.
        if let Some(value) = handshake.headers.get(name) {
            client_headers.insert(name, value.clone());
        }
    }
    client_headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    client_headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    client_headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    let query = handshake.query_map();
    let event = AuthorizerEvent {
        r#type: "REQUEST",
        method_arn,
        headers: SingleValues(EventHeaders::Client(&client_headers)),
        multi_value_headers: MultiValues(EventHeaders::Client(&client_headers)),
        query_string_parameters: last_values(&query),
        multi_value_query_string_parameters: &query,
        stage_variables,
        request_context: event_context(context),
    };
    let body = serde_json::to_vec(&event).expect("maps with text keys and plain values are JSON");
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    add_context_headers(&mut headers, context, "AUTHORIZER");
    AuthorizerRequest { headers, body: body.into() }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizerEvent<'a> {
    r#type: &'a str,
    method_arn: &'a str,
    headers: SingleValues<'a>,
    multi_value_headers: MultiValues<'a>,
    query_string_parameters: BTreeMap<&'a str, &'a str>,
    multi_value_query_string_parameters: &'a BTreeMap<String, Vec<String>>,
    stage_variables: &'a BTreeMap<String, String>,
    request_context: EventContext<'a>,
}
