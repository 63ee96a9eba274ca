//! Traces: from a client's message through its backend to the post that results from it.
//!
//! A flow starts a [`Span`] for its event and a child for each call of a backend.
//! [`TraceContext`](tidegate_core::trace_context::TraceContext) is the part that is sent on, as `traceparent` and
//! `X-Amzn-Trace-Id`, and between nodes with a forwarded post. Finished spans go through a bounded queue to one task
//! (`exporter.rs`) that posts them to a collector. A span that finds the queue full is lost and counted, and nothing
//! waits.
//!
//! A trace that comes from a backend or a trusted proxy is recorded if its sender records it. Of the traces that begin
//! here a share is recorded, and of those that an untrusted client begins the same share and a few a second more
//! ([`Sender`]). Without a collector no span is recorded, and the context of a trace from outside is passed on
//! unchanged.

mod exporter;
mod settings;
mod span;

pub use exporter::{ExportTarget, InvalidEndpoint};
pub use settings::TracingSettings;
pub use span::{Sender, Span, SpanKind, Tracer};
