use tokio::time::Instant;
use tracing::warn;

use super::management::send::message_limits;
use super::{DataPlane, Live};
use crate::deployment::{Route, Stage};
use tidegate_connections::groups::{Actions, MessageLimits};
use tidegate_core::error_chain::chain;
use tidegate_core::id::ConnectionId;
use tidegate_core::request_context::RequestContext;
use tidegate_integration::{
    Answer, Called, Handshake, IntegrationError, IntegrationRequest, Payload, ProxyAnswerError,
};
use tidegate_telemetry::{IntegrationRecord, Span, SpanKind, StageLabels};

/// The header with a backend's own id of the request, as AWS's services send it.
const X_AMZN_REQUEST_ID: &str = "x-amzn-requestid";

/// Calls the backend of `route` for an event. The call has one span inside the span `event`, one latency and one
/// record. The backend continues the trace of that span.
pub(super) async fn call_integration(
    plane: &DataPlane,
    live: &Live,
    labels: &StageLabels,
    (stage, route): (&Stage, &Route),
    context: &mut RequestContext<'_>,
    (handshake, payload): (Option<&Handshake>, &Payload),
    event: &Span,
) -> (Result<(Answer, Actions), IntegrationError>, IntegrationRecord) {
    let integration = &*route.integration;
    let mut span = event.child("call backend", SpanKind::Client);
    context.trace = Some(span.context());
    let started = Instant::now();
    let request = IntegrationRequest { context, stage_variables: &stage.variables, handshake, payload };
    let Called { outcome, left_out } = plane.integrations.call(integration, &request).await;
    let latency = started.elapsed();
    let limits = message_limits(&live.settings.limits);
    let outcome = outcome.and_then(|answer| with_actions(answer, context.connection.id, limits));
    let (status, request_id) = match &outcome {
        Ok((answer, _)) => {
            if let Some(key) = &answer.unknown_key {
                warn_of_unknown_key(labels, route, key);
            }
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
    plane.telemetry.metrics.integration(
        route.telemetry.meters(&plane.telemetry.metrics, labels),
        latency,
        status,
        record.error_kind,
    );
    if span.is_recording() {
        span.set("tidegate.integration_id", &integration.id);
        integration.origin().into_iter().for_each(|origin| span.set("server.address", origin));
        status.into_iter().for_each(|status| span.set_number("http.response.status_code", status.into()));
        if let Some(error) = &record.error {
            span.fail(error);
        }
    }
    (outcome, record)
}

/// Logs a key in a backend's answer that AWS does not know, within the log's budget for each integration.
fn warn_of_unknown_key(labels: &StageLabels, route: &Route, key: &str) {
    let integration = &*route.integration;
    if let Some(repeated) = integration.unknown_keys.due(key) {
        warn!(
            api_id = &*labels.api_id,
            stage = &*labels.stage,
            route_key = route.key.as_str(),
            integration_id = &*integration.id,
            key,
            repeated,
            "the answer of a backend has a key that AWS does not know; it is ignored, where AWS sends an error"
        );
    }
}

/// Returns `answer` with the actions that the backend requests in it. A status other than 2xx requests none.
fn with_actions(
    mut answer: Answer,
    connection: ConnectionId,
    limits: MessageLimits,
) -> Result<(Answer, Actions), IntegrationError> {
    if !answer.status.is_success() {
        return Ok((answer, Actions::default()));
    }
    match Actions::read(&answer.headers, answer.tidegate.take(), connection, limits) {
        Ok(actions) => Ok((answer, actions)),
        Err(error) => Err(IntegrationError::Unreadable(ProxyAnswerError::Actions(error))),
    }
}
