use tokio::time::Instant;

use super::DataPlane;
use crate::deployment::{Route, Stage};
use crate::integration::{Answer, Called, Handshake, IntegrationError, Payload};
use crate::request_context::RequestContext;
use crate::telemetry::{IntegrationRecord, Span, SpanKind, StageLabels, chain};

/// What backends call the request themselves, as AWS's services do.
const X_AMZN_REQUEST_ID: &str = "x-amzn-requestid";

/// Calls the backend of a route for an event: one span inside the event's, one latency, one record. The backend
/// continues the trace of that span.
pub(super) async fn call_integration(
    plane: &DataPlane,
    labels: &StageLabels,
    (stage, route): (&Stage, &Route),
    context: &mut RequestContext<'_>,
    (handshake, payload): (Option<&Handshake>, &Payload),
    event: &Span,
) -> (Result<Answer, IntegrationError>, IntegrationRecord) {
    let integration = &*route.integration;
    let mut span = event.child("call backend", SpanKind::Client);
    context.trace = Some(span.context());
    let started = Instant::now();
    let Called { outcome, left_out } = plane.integrations.call(stage, route, context, handshake, payload).await;
    let latency = started.elapsed();
    let (status, request_id) = match &outcome {
        Ok(answer) => {
            let request_id = answer.headers.get(X_AMZN_REQUEST_ID).and_then(|value| value.to_str().ok());
            (Some(answer.status.as_u16()), request_id.map(str::to_owned))
        }
        Err(error) => (error.status().map(|status| status.as_u16()), None),
    };
    let error = outcome.as_ref().err();
    let record = IntegrationRecord {
        integration_id: integration.id.clone(),
        status,
        error_kind: error.map(IntegrationError::kind),
        error: error.map(|error| chain(error).to_string()),
        latency,
        request_id,
        left_out,
    };
    plane.metrics.integration(route.telemetry.meters(&plane.metrics, labels), latency, status, record.error_kind);
    if span.is_recording() {
        span.set("tidegate.integration_id", &integration.id);
        span.set("server.address", integration.backend.origin());
        status.into_iter().for_each(|status| span.set_number("http.response.status_code", status.into()));
        if let Some(error) = &record.error {
            span.fail(error);
        }
    }
    (outcome, record)
}
