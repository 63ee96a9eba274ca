use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Response};
use tokio::time::Instant;

use super::Operation;
use super::push::Outcome as Reached;
use crate::clock::Timestamp;
use crate::data_plane::gateway_response::{self, Body};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::deployment::{Deployment, Resource, Stage};
use crate::groups::Counts;
use crate::id::{ConnectionId, EventId};
use crate::principal::IamIdentity;
use crate::telemetry::{Callback, EventRecord, Outcome, Span, SpanKind, StageLabels, Subject};
use crate::trace_context::TraceContext;

/// A call of `@connections` that is under way, from whichever listener it came: who calls, and what is recorded of it
/// when it is over.
#[derive(Debug)]
pub struct CallRecord {
    pub deployment: Arc<Deployment>,
    pub stage: Arc<Stage>,
    pub resource: Resource,
    /// What is to be done with it, if anything is.
    pub operation: Option<Operation>,
    host: String,
    method: Method,
    source_ip: IpAddr,
    user_agent: Option<String>,
    request_id: EventId,
    request_time: Timestamp,
    started: Instant,
    /// Continues the trace that the caller is in. A post that goes to another node carries its context.
    pub span: Span,
    /// Bytes of its body, once they are read.
    pub request_bytes: usize,
    /// By which way a post reached its connection: `local` or `peer`.
    pub path: &'static str,
    /// Who signed it.
    pub signer: Option<Arc<IamIdentity>>,
    /// What became of what was sent to many.
    reached: Option<Counts>,
}

impl CallRecord {
    /// A call that begins now.
    pub fn begin(
        plane: &DataPlane,
        (deployment, stage): (Arc<Deployment>, Arc<Stage>),
        resource: Resource,
        (host, method, headers): (String, Method, &HeaderMap),
        source_ip: IpAddr,
    ) -> Self {
        let user_agent = headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        CallRecord {
            deployment,
            stage,
            operation: Operation::find(&method, &resource),
            resource,
            host,
            method,
            source_ip,
            user_agent: user_agent.map(str::to_owned),
            request_id: EventId::random(),
            request_time: plane.clock.now(),
            started: Instant::now(),
            span: plane.telemetry.tracer.start("@connections", SpanKind::Server, TraceContext::of_headers(headers)),
            request_bytes: 0,
            path: "local",
            signer: None,
            reached: None,
        }
    }

    /// The API and the stage, as metrics name them.
    pub fn labels(&self) -> StageLabels {
        StageLabels { api_id: Arc::clone(&self.deployment.api_id), stage: Arc::clone(&self.stage.name) }
    }

    /// All is known of what was sent to many.
    pub(super) fn fanned_out(&mut self, outcome: &Reached) {
        self.reached = Some(outcome.counts);
    }

    /// The id of the call, as its answer names it.
    pub fn request_id(&self) -> EventId {
        self.request_id
    }

    /// The call is over: records it, and gives its answer.
    pub fn end(self, plane: &DataPlane, result: Result<Response<Body>, ConnectionsApiError>) -> Response<Body> {
        let (response, error) = match result {
            Ok(response) => (response, None),
            Err(error) => (gateway_response::connections_api(&error), Some(error)),
        };
        let error = error.as_ref();
        let reason = error.map(ConnectionsApiError::reason);
        let outcome = match self.operation {
            Some(Operation::PostToConnection) => {
                Outcome::Push { outcome: error.map_or("ok", ConnectionsApiError::outcome), path: self.path }
            }
            _ => Outcome::Call,
        };
        let callback = Callback {
            api_id: &self.deployment.api_id,
            stage: &self.stage.name,
            domain_name: &self.host,
            // A method is free text: only those that there are get into logs.
            method: if self.operation.is_some() { self.method.as_str() } else { "OTHER" },
            path: self.resource.path(),
            operation: self.operation.map(Operation::name),
            delivered: self.reached.map(|counts| counts.delivered),
            connection_id: self.resource.connection().and_then(|id| ConnectionId::parse(id).ok()),
            request_id: self.request_id,
            request_time: self.request_time,
            source_ip: Some(self.source_ip),
            user_agent: self.user_agent.as_deref(),
            signer: self.signer.as_deref(),
        };
        let labels = self.labels();
        if self.reached.is_some() {
            plane.metrics.fan_out_took(&labels, self.started.elapsed());
        }
        let record = EventRecord {
            subject: Subject::Callback(&callback),
            outcome,
            labels: &labels,
            stage: &self.stage.telemetry,
            route: &self.stage.telemetry.default,
            status: response.status().as_u16(),
            reason,
            client_text: None,
            error: error.map(|error| error as &(dyn Error + 'static)),
            authorizer: None,
            integration: None,
            request_bytes: self.request_bytes,
            response_bytes: 0,
            data: None,
            started: self.started,
            trace: self.span.context(),
        };
        if let Some(level) = error.and_then(ConnectionsApiError::throttled) {
            plane.metrics.throttled(&labels, level);
        }
        plane.telemetry.record(&plane.metrics, &record, self.span);
        response
    }
}
