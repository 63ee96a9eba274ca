use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use tokio::time::Instant;

use super::OperationKind;
use crate::data_plane::delivery::fan_out::Outcome as Reached;
use crate::data_plane::gateway_response;
use crate::data_plane::response::Body;
use crate::data_plane::{ConnectionsApiError, DataPlane, Live};
use crate::deployment::{Deployment, Resource, Stage};
use tidegate_access::iam::{CallFacts, ConnectionsCall, Grant, PolicyPath};
use tidegate_connections::groups::PushCounts;
use tidegate_core::id::EventId;
use tidegate_core::stage_names::StageNames;
use tidegate_core::trace_context::TraceContext;
use tidegate_telemetry::{
    Callback, EventRecord, Outcome, PushOutcome, PushPath, Scope, Sender, Span, SpanKind, StageLabels, Subject,
};

/// A name that no stage can have. A policy that allows a call for this name also allows it for stages that were removed
/// from the configuration and may still have connections.
const NO_STAGE: &str = "~";

/// A call of `@connections` in progress: its caller, and the values that are recorded when it ends.
#[derive(Debug)]
pub struct CallRecord {
    /// Configuration that the whole call uses.
    pub live: Arc<Live>,
    pub deployment: Arc<Deployment>,
    pub stage: Arc<Stage>,
    pub resource: Resource,
    /// The operation, if `method` has one on `resource`.
    pub operation: Option<OperationKind>,
    host: String,
    pub facts: CallFacts,
    request_id: EventId,
    started: Instant,
    /// The span of the call, which continues the trace of the caller. A call that is forwarded to another node carries
    /// its context.
    pub span: Span,
    /// Size of the body in bytes, once it is read.
    pub request_bytes: usize,
    /// The way by which a push reached its connection.
    pub path: PushPath,
    pub right: CallRight,
    /// The result of a message to many.
    reached: Option<PushCounts>,
}

/// The right by which a call is made.
#[derive(Debug)]
pub enum CallRight {
    /// The call has not been checked. It may do nothing.
    Unchecked,
    /// The listener accepts calls without a signature.
    Unsigned,
    /// A key signed the call, and its policy allows it.
    Granted(Grant),
}

impl CallRight {
    /// Returns the right of the key that signed the call, if a key signed it.
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            CallRight::Granted(grant) => Some(grant),
            CallRight::Unchecked | CallRight::Unsigned => None,
        }
    }
}

impl CallRecord {
    /// Returns the record of a call that begins now.
    pub fn begin(
        plane: &DataPlane,
        (live, deployment, stage): (Arc<Live>, Arc<Deployment>, Arc<Stage>),
        resource: Resource,
        (host, method, headers): (String, Method, &HeaderMap),
        (source_ip, secure, sender): (IpAddr, bool, Sender),
    ) -> Self {
        let tracer = &plane.telemetry.tracer;
        CallRecord {
            live,
            deployment,
            stage,
            operation: OperationKind::find(&method, &resource),
            resource,
            host,
            facts: CallFacts::new(method, headers, source_ip, secure, plane.clock.now()),
            request_id: EventId::random(),
            started: Instant::now(),
            span: tracer.start_for("@connections", SpanKind::Server, sender, TraceContext::of_headers(headers)),
            request_bytes: 0,
            path: PushPath::Local,
            right: CallRight::Unchecked,
            reached: None,
        }
    }

    /// Returns the labels of the call's metrics.
    pub fn labels(&self) -> StageLabels {
        StageLabels { api_id: Arc::clone(&self.deployment.api_id), stage: Arc::clone(&self.stage.name) }
    }

    /// Returns true if the call may name a connection of `stage`: the key that signed the call may make the same call
    /// there. The call's own stage is not checked, because without that right the call would not have been admitted.
    pub(in crate::data_plane) fn reaches(&self, stage: &str) -> bool {
        match &self.right {
            CallRight::Unchecked => false,
            CallRight::Unsigned => true,
            CallRight::Granted(grant) => *self.stage.name == *stage || self.is_granted(grant, stage),
        }
    }

    /// Returns the stages whose connections the call may name, or `None` for every stage.
    pub(in crate::data_plane) fn stages(&self) -> Option<StageNames<Bytes>> {
        let grant = match &self.right {
            CallRight::Unchecked => return Some(StageNames::new(Vec::new())),
            CallRight::Unsigned => return None,
            CallRight::Granted(grant) => Some(grant).filter(|grant| grant.is_limited())?,
        };
        let (mut reached, mut is_everywhere) = (Vec::new(), self.is_granted(grant, NO_STAGE));
        for stage in self.deployment.stages() {
            match self.reaches(&stage.name) {
                true => reached.push(&*stage.name),
                false => is_everywhere = false,
            }
        }
        (!is_everywhere).then(|| StageNames::new(reached))
    }

    /// Returns this call for the policy of its key, with the resources at `paths`.
    pub(super) fn on<'a>(&'a self, paths: &'a [PolicyPath]) -> ConnectionsCall<'a> {
        ConnectionsCall { api_id: &self.deployment.api_id, stage: &self.stage.name, paths, facts: &self.facts }
    }

    fn is_granted(&self, grant: &Grant, stage: &str) -> bool {
        let path = match self.operation {
            // The right that a post to the connection alone would need.
            Some(OperationKind::Send) => Resource::connection_policy_path(),
            _ => self.resource.policy_path(),
        };
        grant.check(&self.deployment.api_id, stage, &path, &self.facts).is_ok()
    }

    /// Notes the result of a message to many.
    pub(super) fn fanned_out(&mut self, outcome: &Reached) {
        self.reached = Some(outcome.counts);
    }

    /// Returns the id of the call, which its response contains.
    pub fn request_id(&self) -> EventId {
        self.request_id
    }

    /// Ends the call: records it and returns its response.
    pub fn end(self, plane: &DataPlane, result: Result<Response<Body>, ConnectionsApiError>) -> Response<Body> {
        let (response, error) = match result {
            Ok(response) => (response, None),
            Err(error) => (gateway_response::connections_api(&error), Some(error)),
        };
        let error = error.as_ref();
        let reason = error.map(ConnectionsApiError::reason);
        let outcome = match self.operation {
            Some(OperationKind::PostToConnection) => {
                Outcome::Push { outcome: error.map_or(PushOutcome::Ok, ConnectionsApiError::outcome), path: self.path }
            }
            _ => Outcome::Call,
        };
        let callback = Callback {
            api_id: &self.deployment.api_id,
            stage: &self.stage.name,
            domain_name: &self.host,
            // A method is free text. Only known methods are written to logs.
            method: if self.operation.is_some() { self.facts.method.as_str() } else { "OTHER" },
            path: self.resource.path(),
            operation: self.operation.map(OperationKind::name),
            delivered: self.reached.map(|counts| counts.delivered),
            connection_id: self.resource.connection(),
            request_id: self.request_id,
            request_time: self.facts.time,
            source_ip: Some(self.facts.source_ip),
            user_agent: self.facts.user_agent.as_deref(),
            signer: self.right.grant().map(|grant| &**grant.identity()),
        };
        let labels = self.labels();
        if self.reached.is_some() {
            plane.telemetry.metrics.fan_out_took(&labels, self.started.elapsed());
        }
        let telemetry = &self.stage.telemetry;
        let scope = Scope { labels: &labels, stage: telemetry, route: &telemetry.default };
        let record = EventRecord {
            status: response.status().as_u16(),
            reason,
            error: error.map(|error| error as &(dyn Error + 'static)),
            request_bytes: self.request_bytes,
            ..EventRecord::new(Subject::Callback(&callback), outcome, scope, self.started, self.span.context())
        };
        if let Some(level) = error.and_then(ConnectionsApiError::throttled) {
            plane.telemetry.metrics.throttled(&labels, level);
        }
        plane.telemetry.record(&record, self.span);
        response
    }
}
