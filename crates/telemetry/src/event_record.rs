use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{AuthorizerOutcome, Outcome, Reason, RouteTelemetry, StageLabels, StageTelemetry};
use tidegate_core::clock::Timestamp;
use tidegate_core::id::{ConnectionId, EventId};
use tidegate_core::principal::IamIdentity;
use tidegate_core::request_context::RequestContext;
use tidegate_core::trace_context::TraceContext;

/// The facts about one event when it is over. The event's flow fills in the record and hands it over once
/// ([`super::Telemetry::record`]); metrics, access log, execution log and span are made from it.
pub struct EventRecord<'a> {
    pub subject: Subject<'a>,
    pub outcome: Outcome,
    pub labels: &'a StageLabels,
    pub stage: &'a StageTelemetry,
    /// Telemetry of the event's route; that of its stage if the event has no route.
    pub route: &'a RouteTelemetry,
    /// Status of the answer, as in HTTP.
    pub status: u16,
    /// Reason why the event was not handled as requested, if it was not.
    pub reason: Option<Reason>,
    /// Text of the error that the client got.
    pub client_text: Option<&'a str>,
    pub error: Option<&'a (dyn Error + 'static)>,
    /// Decision about a client that connects, if there was an authorizer.
    pub authorizer: Option<AuthorizerRecord>,
    /// Call of a backend, if there was one.
    pub integration: Option<IntegrationRecord>,
    pub request_bytes: usize,
    pub response_bytes: usize,
    /// Payloads of the request and the answer, only with `dataTraceEnabled`.
    pub data: Option<Data>,
    pub started: Instant,
    pub trace: TraceContext,
}

/// The API and stage of an event, as telemetry knows them, and its route.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub labels: &'a StageLabels,
    pub stage: &'a StageTelemetry,
    pub route: &'a RouteTelemetry,
}

impl<'a> EventRecord<'a> {
    /// Creates the record of an event that succeeded, with status 200 and without a call of anything. The event's flow
    /// replaces what was otherwise.
    pub fn new(
        subject: Subject<'a>,
        outcome: Outcome,
        Scope { labels, stage, route }: Scope<'a>,
        started: Instant,
        trace: TraceContext,
    ) -> Self {
        EventRecord {
            subject,
            outcome,
            labels,
            stage,
            route,
            status: 200,
            reason: None,
            client_text: None,
            error: None,
            authorizer: None,
            integration: None,
            request_bytes: 0,
            response_bytes: 0,
            data: None,
            started,
            trace,
        }
    }
}

/// The subject of an event.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// An action of a client.
    Event(&'a RequestContext<'a>),
    /// A call of `@connections`.
    Callback(&'a Callback<'a>),
}

/// A call of `@connections` or another operation of the backend API, by any caller.
#[derive(Clone, Debug)]
pub struct Callback<'a> {
    pub api_id: &'a str,
    pub stage: &'a str,
    pub domain_name: &'a str,
    pub method: &'a str,
    /// Path below the stage, with names in place of values.
    pub path: &'static str,
    /// Operation; `None` if there is no such method.
    pub operation: Option<&'static str>,
    /// Number of connections to which a message to many was delivered.
    pub delivered: Option<usize>,
    /// Id of the connection; `None` if the path has no valid one.
    pub connection_id: Option<ConnectionId>,
    pub request_id: EventId,
    pub request_time: Timestamp,
    pub source_ip: Option<IpAddr>,
    pub user_agent: Option<&'a str>,
    /// Identity that signed the call.
    pub signer: Option<&'a IamIdentity>,
}

/// The kind of an authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizerKind {
    Request,
    Jwt,
    Iam,
}

/// The decision of an authorizer about a client.
#[derive(Clone, Debug)]
pub struct AuthorizerRecord {
    pub kind: AuthorizerKind,
    /// Outcome, as in `tidegate_authorizer_results_total`.
    pub outcome: AuthorizerOutcome,
    /// Error because of which the client was refused, with all causes, for people.
    pub error: Option<String>,
    /// True if the signature of an `AWS_IAM` request is valid, whatever the policy says.
    pub is_signed: bool,
    pub latency: Duration,
    /// Call of an authorizer that is an HTTP server. `None` if its answer was cached.
    pub call: Option<AuthorizerCall>,
}

/// A call of an authorizer that is an HTTP server.
#[derive(Clone, Debug)]
pub struct AuthorizerCall {
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    pub latency: Duration,
    /// Id that the authorizer gave to the request.
    pub request_id: Option<String>,
}

/// A call of a backend.
#[derive(Clone, Debug)]
pub struct IntegrationRecord {
    pub integration_id: Arc<str>,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// Kind of the failure, as in `tidegate_integration_errors_total`. `error` is the failure with all causes, for
    /// people.
    pub error_kind: Option<&'static str>,
    pub error: Option<String>,
    pub latency: Duration,
    /// Id that the backend gave to the request.
    pub request_id: Option<String>,
    /// True if a request parameter had no value and was left out.
    pub left_out: bool,
}

/// The payloads of an event, unchanged.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub request: Bytes,
    pub response: Bytes,
}

impl Subject<'_> {
    /// Returns AWS's name of the kind of event.
    pub fn event_type(&self) -> &'static str {
        match self {
            Subject::Event(context) => context.event.event_type(),
            Subject::Callback(_) => "CONNECTION_API",
        }
    }

    /// Returns the connection that the event is about, if it is about one.
    pub fn connection_id(&self) -> Option<ConnectionId> {
        match self {
            Subject::Event(context) => Some(context.connection.id),
            Subject::Callback(callback) => callback.connection_id,
        }
    }
}
