//! The execution log: a line about each event of a stage that enables it, in the process's own log.
//!
//! Lines are at level `info` with target `tidegate::execution`, so that they are logged when a stage enables them.
//! Payloads are at level `debug` with target `tidegate::data_trace`, shortened: they need both `dataTraceEnabled` and
//! an operator who enables that level. Neither contains headers, query strings or tokens.
//!
//! Anyone can make an event fail, so lines about failed events have the budget of their kind. Lines about successful
//! events, and payloads, come only from accepted clients, and the stage has requested all of them. So they have no
//! budget, but they are the first to be lost when the log is read too slowly.

use tracing::{Span, debug, debug_span, info, info_span};

use super::{EventRecord, RouteTelemetry, Subject, UNBUDGETED};
use tidegate_core::error_chain::chain;
use tidegate_core::id::EventId;
use tidegate_core::request_context::Connection;
use tidegate_resources::LoggingLevel;

/// Most bytes of a payload that are logged. AWS cuts its log events at the same length.
const PAYLOAD_MAX_BYTES: usize = 1024;

/// Returns the span around everything that happens on one connection.
pub fn connection_span(logging_level: LoggingLevel, connection: &Connection) -> Span {
    let Connection { id, api_id, stage, .. } = connection;
    // With the log off, the usual filters do not enable the span, and it costs one check of the filter.
    if logging_level == LoggingLevel::Off {
        debug_span!(target: "tidegate::execution", "connection", connection_id = %id, api_id = &**api_id, stage = &**stage)
    } else {
        info_span!(target: "tidegate::execution", "connection", connection_id = %id, api_id = &**api_id, stage = &**stage)
    }
}

/// Returns the span around one event on a connection.
pub fn event_span(route: &RouteTelemetry, route_key: &str, request_id: &EventId) -> Span {
    if route.logging_level == LoggingLevel::Off {
        debug_span!(target: "tidegate::execution", "event", route_key, request_id = %request_id)
    } else {
        info_span!(target: "tidegate::execution", "event", route_key, request_id = %request_id)
    }
}

/// Writes the lines that the settings of the record's route enable.
pub(super) fn write(record: &EventRecord<'_>) {
    let failed = record.status >= 400;
    let wanted = match record.route.logging_level {
        LoggingLevel::Off => false,
        LoggingLevel::Error => failed,
        LoggingLevel::Info => true,
    };
    let (request_id, route_key) = match record.subject {
        Subject::Event(context) => (context.request_id, context.route_key),
        Subject::Callback(callback) => (callback.request_id, "@connections"),
    };
    let connection_id = record.subject.connection_id();
    let connection_id = connection_id.as_ref().map(tracing::field::display);
    let (api_id, stage) = (&*record.labels.api_id, &*record.labels.stage);
    let event_type = record.subject.event_type();
    let reason = record.reason.map(super::Reason::code);
    let status = record.status;
    let integration = record.integration.as_ref();
    macro_rules! line {
        ($message:literal $(, $($name:tt)*)?) => {
            info!(
                $($($name)*)? target: "tidegate::execution",
                request_id = %request_id, connection_id, api_id, stage, route_key, event_type, status, reason,
                integration_status = integration.and_then(|integration| integration.status),
                integration_millis = integration.map(|integration| integration.latency.as_secs_f64() * 1e3),
                error = record.error.map(|error| tracing::field::display(chain(error))),
                trace_id = %record.trace.trace_id_hex(),
                $message
            )
        };
    }
    if wanted && failed {
        line!("an event failed");
    } else if wanted {
        line!("an event is done", name: UNBUDGETED,);
    } else if reason.is_some() {
        // Always logged, for operators who enable this level.
        debug!(
            request_id = %request_id, connection_id, api_id, stage, route_key, event_type, status, reason,
            error = record.error.map(|error| tracing::field::display(chain(error))),
            "an event was not handled as requested"
        );
    }
    if let Some(data) = record.data.as_ref().filter(|_| record.route.data_trace) {
        debug!(
            name: UNBUDGETED, target: "tidegate::data_trace",
            request_id = %request_id, connection_id, api_id, stage, route_key,
            request = shortened(&data.request), response = shortened(&data.response), "payloads"
        );
    }
}

fn shortened(payload: &[u8]) -> String {
    String::from_utf8_lossy(&payload[..payload.len().min(PAYLOAD_MAX_BYTES)]).into_owned()
}
