use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Reason, RouteTelemetry, StageLabels, StageTelemetry};
use crate::clock::Timestamp;
use crate::id::{ConnectionId, EventId};
use crate::principal::IamIdentity;
use crate::request_context::RequestContext;
use crate::trace_context::TraceContext;

/// All that is known of one event when it is over. Its flow fills it in and hands it over once
/// ([`super::Telemetry::record`]); metrics, access log, execution log and span are made from it.
pub struct EventRecord<'a> {
    pub subject: Subject<'a>,
    pub outcome: Outcome,
    pub labels: &'a StageLabels,
    pub stage: &'a StageTelemetry,
    /// Of the event's route; its stage's where it has none.
    pub route: &'a RouteTelemetry,
    /// What was answered, as an HTTP status.
    pub status: u16,
    /// Why it went another way than asked for, if it did.
    pub reason: Option<Reason>,
    /// What the client was told instead of what it asked for.
    pub client_text: Option<&'a str>,
    pub error: Option<&'a (dyn Error + 'static)>,
    /// What was decided about a client that connects, if somebody was asked.
    pub authorizer: Option<AuthorizerRecord>,
    /// The call of a backend, if there was one.
    pub integration: Option<IntegrationRecord>,
    pub request_bytes: usize,
    pub response_bytes: usize,
    /// What was sent and answered, for `dataTraceEnabled` alone.
    pub data: Option<Data>,
    pub started: Instant,
    pub trace: TraceContext,
}

/// What an event is about.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// Something that a client did.
    Event(&'a RequestContext<'a>),
    /// A call of `@connections`.
    Callback(&'a Callback<'a>),
}

/// What became of it, in the words of its metric.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    Connect {
        outcome: &'static str,
        throttled: Option<&'static str>,
    },
    Message {
        throttled: Option<&'static str>,
    },
    MessageWithoutRoute,
    Disconnect,
    Push {
        outcome: &'static str,
        path: &'static str,
    },
    /// Another call of `@connections`.
    Call,
}

/// A call of `@connections` or beside it, by a backend or by whoever may.
#[derive(Clone, Debug)]
pub struct Callback<'a> {
    pub api_id: &'a str,
    pub stage: &'a str,
    pub domain_name: &'a str,
    pub method: &'a str,
    /// Below the stage, with names in place of values.
    pub path: &'static str,
    /// What was to be done; none if there is no such method.
    pub operation: Option<&'static str>,
    /// To how many connections a message to many was delivered.
    pub delivered: Option<usize>,
    /// None if what was typed is no id.
    pub connection_id: Option<ConnectionId>,
    pub request_id: EventId,
    pub request_time: Timestamp,
    pub source_ip: Option<IpAddr>,
    pub user_agent: Option<&'a str>,
    /// Who signed it.
    pub signer: Option<&'a IamIdentity>,
}

/// Which kind of authorizer decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizerKind {
    Request,
    Jwt,
    Iam,
}

/// What an authorizer decided about a client.
#[derive(Clone, Debug)]
pub struct AuthorizerRecord {
    pub kind: AuthorizerKind,
    /// As `tidegate_authorizer_results_total` says.
    pub outcome: &'static str,
    /// Why it let nobody in, with all causes, for people.
    pub error: Option<String>,
    /// Of `AWS_IAM`: the signature counts, whatever the policy says.
    pub is_signed: bool,
    pub latency: Duration,
    /// The call of an authorizer that is an HTTP server; none if its answer was known.
    pub call: Option<AuthorizerCall>,
}

/// A call of an authorizer that is an HTTP server.
#[derive(Clone, Debug)]
pub struct AuthorizerCall {
    /// Of its answer, if there was one.
    pub status: Option<u16>,
    pub latency: Duration,
    /// What the authorizer calls the request.
    pub request_id: Option<String>,
}

/// A call of a backend.
#[derive(Clone, Debug)]
pub struct IntegrationRecord {
    pub integration_id: Arc<str>,
    /// Of its answer, if there was one.
    pub status: Option<u16>,
    /// Of its failure, as `tidegate_integration_errors_total` says, and with all causes for people.
    pub error_kind: Option<&'static str>,
    pub error: Option<String>,
    pub latency: Duration,
    /// What the backend calls the request.
    pub request_id: Option<String>,
    /// A request parameter had no value and was left out.
    pub left_out: bool,
}

/// Payloads, as they are.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub request: Bytes,
    pub response: Bytes,
}

impl Subject<'_> {
    /// AWS's name of the kind of event.
    pub fn event_type(&self) -> &'static str {
        match self {
            Subject::Event(context) => context.event.event_type(),
            Subject::Callback(_) => "CONNECTION_API",
        }
    }

    /// The connection that it is about, if it is about one.
    pub fn connection_id(&self) -> Option<ConnectionId> {
        match self {
            Subject::Event(context) => Some(context.connection.id),
            Subject::Callback(callback) => callback.connection_id,
        }
    }
}
