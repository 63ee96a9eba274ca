use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::header_names::spelling;
use super::{Handshake, Payload};
use tidegate_core::principal::{AuthorizerContext, Principal};
use tidegate_core::request_context::{ClientCert, Event, RequestContext};

/// Returns the Lambda proxy event of a WebSocket API, as JSON. Keys without a value are left out, as AWS does since
/// 2022.
///
/// Source: AWS, "Set up a WebSocket API integration request in API Gateway", and recorded events.
pub fn proxy_event(
    context: &RequestContext<'_>,
    stage_variables: &BTreeMap<String, String>,
    handshake: Option<&Handshake>,
    payload: &Payload,
) -> Vec<u8> {
    let query = handshake.map(Handshake::query_map).filter(|query| !query.is_empty());
    let shown = handshake.map(Handshake::shown_headers);
    let headers = match (&context.event, &shown) {
        (Event::Connect, Some(shown)) => Some(EventHeaders::Client(shown)),
        (Event::Disconnect { .. }, _) => Some(EventHeaders::Stub(context.domain_name)),
        (Event::Connect | Event::Message { .. }, _) => None,
    };
    let event = ProxyEvent {
        headers: headers.map(SingleValues),
        multi_value_headers: headers.map(MultiValues),
        query_string_parameters: query.as_ref().map(last_values),
        multi_value_query_string_parameters: query.as_ref(),
        request_context: event_context(context),
        body: match payload {
            Payload::Empty => None,
            Payload::Text(text) => Some(Cow::Borrowed(text.as_str())),
            Payload::Binary(bytes) => Some(Cow::Owned(STANDARD.encode(bytes))),
        },
        stage_variables: Some(stage_variables).filter(|variables| !variables.is_empty()),
        is_base64_encoded: matches!(payload, Payload::Binary(_)),
    };
    let mut json = Vec::with_capacity(1024 + event.body.as_ref().map_or(0, |body| body.len() + body.len() / 8));
    serde_json::to_writer(&mut json, &event).expect("maps with text keys and plain values are JSON");
    json
}

pub(super) fn event_context<'a>(context: &'a RequestContext<'a>) -> EventContext<'a> {
    let connection = context.connection;
    let principal = context.principal.as_deref();
    let api_key = principal.and_then(|principal| principal.api_key.as_deref());
    let iam = principal.and_then(|principal| principal.iam.as_deref());
    let (mut message_id, mut disconnect_status_code, mut disconnect_reason) = (None, None, None);
    match &context.event {
        Event::Connect => {}
        Event::Message { message_id: id } => message_id = Some(id.as_str()),
        Event::Disconnect { code, reason, .. } => {
            disconnect_status_code = Some(*code);
            disconnect_reason = Some(&**reason);
        }
    }
    EventContext {
        route_key: context.route_key,
        authorizer: principal
            .filter(|principal| principal.authorizer.is_some())
            .map(|principal| EventAuthorizer { principal, with_latency: matches!(context.event, Event::Connect) }),
        message_id,
        disconnect_status_code,
        event_type: context.event.event_type(),
        extended_request_id: context.request_id.as_str(),
        request_time: context.request_time.clf(),
        message_direction: "IN",
        disconnect_reason,
        stage: &connection.stage,
        connected_at: connection.connected_at.millis(),
        request_time_epoch: context.request_time.millis(),
        identity: Identity {
            api_key: api_key.map(|key| key.value.expose()).filter(|value| !value.is_empty()),
            api_key_id: api_key.map(|key| &*key.id),
            access_key: iam.map(|iam| &*iam.access_key_id),
            account_id: iam.map(|iam| &*iam.account_id),
            caller: iam.map(|iam| &*iam.name),
            user: iam.map(|iam| &*iam.name),
            user_arn: iam.map(|iam| &*iam.user_arn),
            user_agent: connection.user_agent.as_deref(),
            source_ip: connection.source_ip.to_string(),
            client_cert: connection.client_cert.as_deref(),
        },
        request_id: context.request_id.as_str(),
        domain_name: context.domain_name,
        connection_id: connection.id.to_string(),
        api_id: &connection.api_id,
        callback_url: &context.callback_url,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProxyEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<SingleValues<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<MultiValues<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_query_string_parameters: Option<&'a BTreeMap<String, Vec<String>>>,
    request_context: EventContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage_variables: Option<&'a BTreeMap<String, String>>,
    is_base64_encoded: bool,
}

/// The `requestContext` of an event, with its keys in AWS's own order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventContext<'a> {
    route_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<EventAuthorizer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    event_type: &'a str,
    extended_request_id: &'a str,
    request_time: String,
    message_direction: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    stage: &'a str,
    connected_at: u64,
    request_time_epoch: u64,
    identity: Identity<'a>,
    request_id: &'a str,
    domain_name: &'a str,
    connection_id: String,
    api_id: &'a str,
    callback_url: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    source_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cert: Option<&'a ClientCert>,
}

/// The `authorizer` key of an event: `principalId` and the authorizer's context unchanged, or a token's claims below
/// `jwt`.
struct EventAuthorizer<'a> {
    principal: &'a Principal,
    /// True for `$connect`, the only event that has the authorizer's latency.
    with_latency: bool,
}

impl Serialize for EventAuthorizer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.principal.authorizer {
            Some(AuthorizerContext::Request { principal_id, context }) => {
                for (name, value) in context.iter().filter(|(name, _)| **name != *"principalId") {
                    map.serialize_entry(name, value)?;
                }
                if let Some(principal_id) = principal_id {
                    map.serialize_entry("principalId", principal_id)?;
                }
            }
            Some(AuthorizerContext::Jwt { claims, scopes }) => {
                map.serialize_entry("jwt", &EventToken { claims, scopes: scopes.as_deref() })?;
            }
            None => {}
        }
        if let Some(latency) = self.principal.integration_latency.filter(|_| self.with_latency) {
            map.serialize_entry("integrationLatency", &latency)?;
        }
        map.end()
    }
}

/// A token in the form that events of AWS's HTTP APIs have.
#[derive(Serialize)]
struct EventToken<'a> {
    #[serde(serialize_with = "as_map")]
    claims: &'a [(Box<str>, Box<str>)],
    scopes: Option<&'a [Box<str>]>,
}

fn as_map<S: Serializer>(pairs: &[(Box<str>, Box<str>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

pub(super) fn last_values(query: &BTreeMap<String, Vec<String>>) -> BTreeMap<&str, &str> {
    query.iter().filter_map(|(name, values)| Some((name.as_str(), values.last()?.as_str()))).collect()
}

/// Headers of an event.
#[derive(Clone, Copy)]
pub(super) enum EventHeaders<'a> {
    /// The shown headers of the client's upgrade request.
    Client(&'a HeaderMap),
    /// The four headers that AWS generates for a `$disconnect`. The host is the domain name.
    Stub(&'a str),
}

/// A map from each header name to its last value.
pub(super) struct SingleValues<'a>(pub(super) EventHeaders<'a>);

/// A map from each header name to all its values.
pub(super) struct MultiValues<'a>(pub(super) EventHeaders<'a>);

impl EventHeaders<'_> {
    /// Returns the names as browsers write them, each with all its values, in alphabetical order regardless of case.
    fn sorted(&self) -> Vec<(Cow<'_, str>, Vec<Cow<'_, str>>)> {
        match self {
            EventHeaders::Client(headers) => {
                let mut names: Vec<_> = headers.keys().collect();
                names.sort_unstable_by_key(|name| name.as_str());
                let values = |name| headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
                names.into_iter().map(|name| (spelling(name).into(), values(name).collect())).collect()
            }
            EventHeaders::Stub(host) => {
                let stub = [("Host", *host), ("x-api-key", ""), ("X-Forwarded-For", ""), ("x-restapi", "")];
                stub.into_iter().map(|(name, value)| (name.into(), vec![value.into()])).collect()
            }
        }
    }
}

impl Serialize for SingleValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let headers = self.0.sorted();
        let mut map = serializer.serialize_map(Some(headers.len()))?;
        for (name, values) in &headers {
            map.serialize_entry(name, values.last().map_or("", AsRef::as_ref))?;
        }
        map.end()
    }
}

impl Serialize for MultiValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.sorted())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
    use serde_json::{Value, json};

    use super::*;
    use tidegate_core::clock::Timestamp;
    use tidegate_core::id::{ConnectionId, EventId, NodeId};
    use tidegate_core::request_context::Connection;

    fn connection() -> Connection {
        Connection {
            id: ConnectionId::random(NodeId::random()),
            api_id: "chat".into(),
            stage: "prod".into(),
            connected_at: Timestamp(1_757_454_867_412),
            configuration: 1,
            host: "chat.example.com:8080".into(),
            callback_secure: false,
            secure: false,
            source_ip: IpAddr::from([198, 51, 100, 23]),
            user_agent: Some("demo-client/3.1".into()),
            principal: arc_swap::ArcSwapOption::empty(),
            client_cert: None,
            port: 8080,
            forwarded_for: None,
            topics: Default::default(),
        }
    }

    fn build(
        event: Event,
        handshake: Option<&Handshake>,
        payload: &Payload,
    ) -> (Value, ApiGatewayWebsocketProxyRequest) {
        let connection = connection();
        let context = RequestContext {
            connection: &connection,
            principal: connection.principal.load_full(),
            event,
            route_key: "sendMessage",
            request_id: EventId::random(),
            request_time: Timestamp(1_757_454_879_555),
            domain_name: &connection.host,
            callback_url: "http://chat.example.com:8080/prod/@connections/x".to_owned(),
            trace: None,
        };
        let variables = BTreeMap::from([("table".to_owned(), "sessions-prod".to_owned())]);
        let json = proxy_event(&context, &variables, handshake, payload);
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["requestContext"]["connectionId"], connection.id.to_string());
        assert_eq!(value["stageVariables"], json!({"table": "sessions-prod"}));
        let typed = serde_json::from_value(value.clone()).expect("the crate's type reads the event");
        (value, typed)
    }

    #[test]
    fn a_connect_event_has_the_clients_headers_and_query_and_no_body() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "chat.example.com:8080".parse().unwrap());
        headers.insert("sec-websocket-protocol", "chat.v2, chat.v1".parse().unwrap());
        headers.append("x-many", "1".parse().unwrap());
        headers.append("x-many", "2".parse().unwrap());
        headers.insert("x-amzn-trace-id", "Root=1-0-0".parse().unwrap());
        let query = "room=blue&tag=a&tag=b%20c&empty=".to_owned();
        let handshake = Handshake::new(headers, Some(query));
        let (event, typed) = build(Event::Connect, Some(&handshake), &Payload::Empty);
        assert_eq!(
            event["headers"],
            json!({
                "Host": "chat.example.com:8080", "Sec-WebSocket-Protocol": "chat.v2, chat.v1",
                "X-Amzn-Trace-Id": "Root=1-0-0", "X-Many": "2"
            })
        );
        assert_eq!(event["multiValueHeaders"]["X-Many"], json!(["1", "2"]));
        assert_eq!(event["queryStringParameters"], json!({"room": "blue", "tag": "b c", "empty": ""}));
        assert_eq!(event["multiValueQueryStringParameters"]["tag"], json!(["a", "b c"]));
        assert_eq!(event["isBase64Encoded"], json!(false));
        for absent in ["body", "path", "httpMethod", "resource", "version", "pathParameters"] {
            assert!(event.get(absent).is_none(), "{absent}");
        }
        assert_eq!(event["requestContext"]["eventType"], "CONNECT");
        assert_eq!(
            event["requestContext"]["identity"],
            json!({"userAgent": "demo-client/3.1", "sourceIp": "198.51.100.23"})
        );
        assert!(event["requestContext"].get("messageId").is_none());
        assert_eq!(typed.request_context.event_type.as_deref(), Some("CONNECT"));
        assert_eq!(typed.request_context.connected_at, 1_757_454_867_412);
    }

    #[test]
    fn a_message_event_has_the_body_and_no_headers() {
        let message = EventId::random();
        let (event, typed) =
            build(Event::Message { message_id: message }, None, &Payload::Text("{\"a\":\"\u{1F600}\"}".into()));
        assert_eq!(event["body"], "{\"a\":\"\u{1F600}\"}");
        assert_eq!(event["requestContext"]["messageId"], message.as_str());
        assert_eq!(event["requestContext"]["requestTime"], "09/Sep/2025:21:54:39 +0000");
        assert_eq!(event["requestContext"]["requestId"], event["requestContext"]["extendedRequestId"]);
        assert_eq!(event["requestContext"]["messageDirection"], "IN");
        for absent in ["headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters"] {
            assert!(event.get(absent).is_none(), "{absent}");
        }
        assert_eq!(typed.request_context.message_id.as_deref(), Some(message.as_str()));
    }

    #[test]
    fn every_event_says_who_is_on_the_connection() {
        use std::sync::Arc;
        use tidegate_core::principal::{ApiKeyIdentity, IamIdentity};

        let principal = Principal {
            authorizer: Some(AuthorizerContext::Request {
                principal_id: Some("ann".into()),
                context: [("tier".into(), "gold".into())].into(),
            }),
            api_key: Some(Arc::new(ApiKeyIdentity { id: "mobile".into(), value: "key".to_owned().into() })),
            integration_latency: Some(12),
            ..Principal::default()
        };
        let token = Principal {
            authorizer: Some(AuthorizerContext::Jwt { claims: [("sub".into(), "ann".into())].into(), scopes: None }),
            iam: Some(Arc::new(IamIdentity {
                name: "backend".into(),
                access_key_id: "AKID".into(),
                account_id: "000000000000".into(),
                user_arn: "arn:aws:iam::000000000000:user/backend".into(),
            })),
            ..Principal::default()
        };
        let connection = connection();
        let event = |principal: &Principal, event: Event| {
            connection.principal.store(Some(Arc::new(principal.clone())));
            let context = RequestContext {
                connection: &connection,
                principal: connection.principal.load_full(),
                event,
                route_key: "$connect",
                request_id: EventId::random(),
                request_time: Timestamp(0),
                domain_name: &connection.host,
                callback_url: String::new(),
                trace: None,
            };
            serde_json::to_value(event_context(&context)).unwrap()
        };
        let connect = event(&principal, Event::Connect);
        assert_eq!(connect["authorizer"], json!({"tier": "gold", "principalId": "ann", "integrationLatency": 12}));
        assert_eq!(
            (&connect["identity"]["apiKey"], &connect["identity"]["apiKeyId"]),
            (&json!("key"), &json!("mobile"))
        );
        let message = event(&principal, Event::Message { message_id: EventId::random() });
        assert_eq!(message["authorizer"], json!({"tier": "gold", "principalId": "ann"}));
        let signed = event(&token, Event::Connect);
        assert_eq!(signed["authorizer"], json!({"jwt": {"claims": {"sub": "ann"}, "scopes": null}}));
        assert_eq!(signed["identity"]["userArn"], "arn:aws:iam::000000000000:user/backend");
        assert_eq!(signed["identity"]["accessKey"], "AKID");
    }

    #[test]
    fn a_binary_message_is_base64() {
        let event = Event::Message { message_id: EventId::random() };
        let (event, _) = build(event, None, &Payload::Binary(vec![0, 255, 1].into()));
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("AP8B"), &json!(true)));
    }

    #[test]
    fn a_disconnect_event_has_four_stub_headers_and_says_why() {
        let disconnect = Event::Disconnect { code: 1001, reason: "Going away".into(), attempt: 1 };
        let (event, typed) = build(disconnect, None, &Payload::Empty);
        let host = "chat.example.com:8080";
        assert_eq!(event["headers"], json!({"Host": host, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}));
        assert_eq!(
            event["multiValueHeaders"],
            json!({"Host": [host], "x-api-key": [""], "X-Forwarded-For": [""], "x-restapi": [""]})
        );
        assert_eq!(event["requestContext"]["disconnectStatusCode"], 1001);
        assert_eq!(event["requestContext"]["disconnectReason"], "Going away");
        assert!(event.get("body").is_none());
        assert_eq!(typed.request_context.disconnect_status_code, Some(1001));
    }
}
