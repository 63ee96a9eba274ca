//! The `$context` of one event: everything that is known about a connection and about the event. Integration events,
//! request parameters and headers of backend calls are filled from these values.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::{ConnectionId, EventId};
use crate::principal::Principal;
use crate::topic::Topics;
use crate::trace_context::TraceContext;

/// Everything that is known about a connection for its whole life. A fresh token replaces the principal, and groups and
/// users may change; all else stays the same.
#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub api_id: Arc<str>,
    pub stage: Arc<str>,
    pub connected_at: Timestamp,
    /// The number of the configuration that was in force when the connection was admitted; 0 for a connection of
    /// another node.
    pub configuration: u32,
    /// The host with which callback URLs begin, with its port if it has one.
    pub host: Box<str>,
    /// True if callback URLs begin with `https`. The record in Redis does not contain this field: after the death of
    /// the connection's node it has the value of `secure`.
    pub callback_secure: bool,
    /// True if the client used `wss`, as far as the gateway or a trusted proxy knows.
    pub secure: bool,
    pub source_ip: IpAddr,
    /// The client's `User-Agent`, cut to at most `limits.clientHeaderBytes`.
    pub user_agent: Option<Box<str>>,
    /// The principal, once the client was authorized.
    pub principal: ArcSwapOption<Principal>,
    /// The certificate that the client presented to the gateway itself.
    pub client_cert: Option<Arc<ClientCert>>,
    /// The port that the client connected to, as far as the gateway or a trusted proxy knows; 0 if unknown.
    pub port: u16,
    /// The addresses that the client's request passed through, the client's own first, as in `X-Forwarded-For`; `None`
    /// if there is only the client's own.
    pub forwarded_for: Option<Box<str>>,
    /// The groups and users of the connection, while it is open.
    pub topics: Topics,
}

#[cfg(any(test, feature = "testing"))]
impl Connection {
    /// Returns a connection of the API `chat` and the stage `prod`, without TLS, from this machine, and in no group.
    pub fn sample(id: ConnectionId) -> Self {
        Connection {
            id,
            api_id: "chat".into(),
            stage: "prod".into(),
            connected_at: Timestamp(0),
            configuration: 0,
            host: "localhost".into(),
            callback_secure: false,
            secure: false,
            source_ip: [127, 0, 0, 1].into(),
            user_agent: None,
            principal: ArcSwapOption::empty(),
            client_cert: None,
            port: 0,
            forwarded_for: None,
            topics: Topics::default(),
        }
    }
}

/// A client's certificate, as AWS's events describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCert {
    pub client_cert_pem: String,
    #[serde(rename = "subjectDN")]
    pub subject_dn: String,
    #[serde(rename = "issuerDN")]
    pub issuer_dn: String,
    pub serial_number: String,
    pub validity: Validity,
}

/// The validity period of a certificate, in OpenSSL's format: `May 28 12:30:02 2019 GMT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Validity {
    pub not_before: String,
    pub not_after: String,
}

impl ClientCert {
    /// Returns the value of `$context.identity.clientCert.{name}`.
    fn variable(&self, name: &str) -> Option<&str> {
        Some(match name {
            "clientCertPem" => &self.client_cert_pem,
            "subjectDN" => &self.subject_dn,
            "issuerDN" => &self.issuer_dn,
            "serialNumber" => &self.serial_number,
            "validity.notBefore" => &self.validity.not_before,
            "validity.notAfter" => &self.validity.not_after,
            _ => return None,
        })
    }
}

/// An event on a connection.
#[derive(Clone, Debug)]
pub enum Event {
    Connect,
    Message { message_id: EventId },
    Disconnect { code: u16, reason: Arc<str>, attempt: u32 },
}

impl Event {
    /// Returns AWS's name for this kind of event.
    pub fn event_type(&self) -> &'static str {
        match self {
            Event::Connect => "CONNECT",
            Event::Message { .. } => "MESSAGE",
            Event::Disconnect { .. } => "DISCONNECT",
        }
    }
}

/// An event on a connection, with everything that an integration may need to know about it.
#[derive(Clone, Debug)]
pub struct RequestContext<'a> {
    pub connection: &'a Connection,
    /// The principal of the connection when the event happened.
    pub principal: Option<Arc<Principal>>,
    pub event: Event,
    pub route_key: &'a str,
    pub request_id: EventId,
    pub request_time: Timestamp,
    /// The API's own `domainName`, else the connection's `host`.
    pub domain_name: &'a str,
    /// Complete URL to which a backend posts to reach this connection.
    pub callback_url: String,
    /// The trace that calls to backends continue; without it, each call begins a new trace.
    pub trace: Option<TraceContext>,
}

impl RequestContext<'_> {
    /// Returns the value of `$context.{name}`, or `None` if this event has no such value.
    ///
    /// Source: AWS, "WebSocket API mapping template reference for API Gateway".
    pub fn variable(&self, name: &str) -> Option<Cow<'_, str>> {
        let connection = self.connection;
        let value = match name {
            "apiId" => Cow::Borrowed(&*connection.api_id),
            "stage" => Cow::Borrowed(&*connection.stage),
            "domainName" => Cow::Borrowed(self.domain_name),
            "routeKey" => Cow::Borrowed(self.route_key),
            "eventType" => Cow::Borrowed(self.event.event_type()),
            "connectionId" => Cow::Owned(connection.id.to_string()),
            "connectedAt" => Cow::Owned(connection.connected_at.millis().to_string()),
            "requestId" | "extendedRequestId" => Cow::Borrowed(self.request_id.as_str()),
            "requestTime" => Cow::Owned(self.request_time.clf()),
            "requestTimeEpoch" => Cow::Owned(self.request_time.millis().to_string()),
            "messageId" => match &self.event {
                Event::Message { message_id } => Cow::Borrowed(message_id.as_str()),
                Event::Connect | Event::Disconnect { .. } => return None,
            },
            "identity.sourceIp" => Cow::Owned(connection.source_ip.to_string()),
            "identity.userAgent" => Cow::Borrowed(connection.user_agent.as_deref()?),
            _ => {
                if let Some(name) = name.strip_prefix("identity.clientCert.") {
                    return connection.client_cert.as_ref()?.variable(name).map(Cow::Borrowed);
                }
                let principal = self.principal.as_deref()?;
                return match name.split_once('.')? {
                    ("authorizer", name) => principal.authorizer_variable(name),
                    ("identity", name) => principal.identity_variable(name).map(Cow::Borrowed),
                    _ => None,
                };
            }
        };
        Some(value)
    }
}
