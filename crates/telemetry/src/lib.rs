//! The telemetry for operators: logs, metrics, traces.
//!
//! A flow fills in one [`EventRecord`] for each event and hands it to [`Telemetry::record`], which makes metrics
//! (`metrics/`), the line in the access log of the stage (`access_log/`), the execution log and the event's span
//! (`trace/`) from it. [`Reason`] is the reason why an event was not handled as requested.
//!
//! Invariants: labels of metrics come from the configuration; nothing here makes an event wait: lines and spans that
//! cannot be written or sent are lost and counted, with a warning at most once a minute ([`RepeatedWarning`]); log
//! lines of each kind have a budget, so that no client can fill the log ([`logging`]); no payload, header, token or
//! query string is in a log at `info` or above.

mod reason;
mod log_lines;
pub mod metrics;
mod repeated_warning;
mod loss;
mod trace;
mod access_log;
mod scope;
mod outcome;
mod event_record;
pub mod execution_log;
mod record;
pub mod logging;

pub use access_log::{AccessLog, AccessLogs, InvalidFormat};
pub use event_record::{
    AuthorizerCall, AuthorizerKind, AuthorizerRecord, Callback, Data, EventRecord, IntegrationRecord, Scope, Subject,
};
pub use log_lines::UNBUDGETED;
pub use metrics::{AcceptGauge, LinkMetrics, Metrics, ReapingMetrics, RegistryMetrics, StageLabels};
pub use outcome::{AuthorizerOutcome, ConnectOutcome, Outcome, PushOutcome, PushPath};
pub use reason::Reason;
pub use record::Telemetry;
pub use repeated_warning::RepeatedWarning;
pub use scope::{RouteTelemetry, StageTelemetry};
pub use trace::{ExportTarget, InvalidEndpoint, Sender, Span, SpanKind, Tracer, TracingSettings};
