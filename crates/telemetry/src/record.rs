use tracing::debug;

use super::{
    AccessLogs, AuthorizerKind, EventRecord, Metrics, Outcome, PushOutcome, Reason, Span, StageLabels, Subject, Tracer,
    execution_log,
};
use tidegate_core::request_context::Event;

/// The receiver of the records that flows hand over.
#[derive(Debug)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub tracer: Tracer,
    pub access_logs: AccessLogs,
}

impl Telemetry {
    /// Makes metrics, access log, execution log and span from `record`, and ends the span.
    pub fn record(&self, record: &EventRecord<'_>, mut span: Span) {
        count(&self.metrics, record);
        if let Some(access_log) = &record.stage.access_log {
            access_log.write(record);
        }
        execution_log::write(record);
        if span.is_recording() {
            describe(&mut span, record);
        }
    }

    /// Counts and logs a request that was refused and belongs to no stage.
    pub fn refused(&self, reason: Reason) {
        self.metrics.reason(&StageLabels::none(), "REQUEST", reason);
        debug!(reason = reason.code(), "a request was refused: {}", reason.meaning());
    }
}

fn count(metrics: &Metrics, record: &EventRecord<'_>) {
    let meters = record.route.meters(metrics, record.labels);
    match record.outcome {
        Outcome::Connect { outcome, throttled } => {
            metrics.connect(record.labels, outcome);
            throttled.into_iter().for_each(|level| metrics.throttled(record.labels, level));
            if record.integration.is_some() {
                metrics.connect_reached_integration(meters);
            }
        }
        Outcome::Message { throttled } => {
            metrics.message(meters, record.request_bytes);
            throttled.into_iter().for_each(|level| metrics.throttled(record.labels, level));
            if record.response_bytes > 0 {
                metrics.reply(meters, record.response_bytes);
            }
        }
        Outcome::MessageWithoutRoute => metrics.message_without_route(record.labels),
        Outcome::Push { outcome, path } => {
            metrics.push(record.labels, outcome, path);
            if outcome == PushOutcome::Ok {
                metrics.reply(meters, record.request_bytes);
            }
        }
        Outcome::Disconnect | Outcome::Call => {}
    }
    if let Some(authorizer) = &record.authorizer {
        // An answer from the cache took no time.
        let is_known = authorizer.kind == AuthorizerKind::Request && authorizer.call.is_none();
        metrics.authorizer(record.labels, authorizer.outcome, Some(authorizer.latency).filter(|_| !is_known));
    }
    let event_type = record.subject.event_type();
    if record.integration.is_none()
        && (400..500).contains(&record.status)
        && matches!(record.subject, Subject::Event(_))
    {
        metrics.client_error(meters);
    }
    if let Some(reason) = record.reason {
        metrics.reason(record.labels, event_type, reason);
    }
    if record.integration.as_ref().is_some_and(|integration| integration.left_out) {
        metrics.reason(record.labels, event_type, Reason::MappingLeftOut);
    }
}

fn describe(span: &mut Span, record: &EventRecord<'_>) {
    span.set("tidegate.api_id", &record.labels.api_id);
    span.set("tidegate.stage", &record.labels.stage);
    span.set("tidegate.event_type", record.subject.event_type());
    match record.subject {
        Subject::Event(context) => {
            span.set("tidegate.connection_id", context.connection.id);
            span.set("tidegate.request_id", context.request_id);
            span.set("tidegate.route_key", context.route_key);
            if let Event::Disconnect { code, attempt, .. } = context.event {
                span.set_number("tidegate.close_code", code.into());
                span.set_number("tidegate.attempt", attempt.into());
            }
        }
        Subject::Callback(callback) => {
            callback.connection_id.into_iter().for_each(|id| span.set("tidegate.connection_id", id));
            span.set("tidegate.request_id", callback.request_id);
            span.set("http.request.method", callback.method);
            callback.delivered.into_iter().for_each(|count| span.set_count("tidegate.delivered", count));
        }
    }
    span.set_number("http.response.status_code", record.status.into());
    if let Some(reason) = record.reason {
        span.set("tidegate.reason", reason.code());
    }
    if record.status >= 400 {
        span.fail(record.reason.map_or("", Reason::meaning));
    }
}
