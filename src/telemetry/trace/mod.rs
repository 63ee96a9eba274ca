//! Traces: from a client's message through its backend to the post that it caused.
//!
//! A flow starts a [`Span`] for its event and a child for each call of a backend.
//! [`TraceContext`](crate::trace_context::TraceContext) is the part that is sent on, as `traceparent` and
//! `X-Amzn-Trace-Id`, and between nodes with a forwarded post. Finished spans go through a bounded queue to one task
//! (`exporter.rs`) that posts them to a collector. A span that finds the queue full is lost and counted, and nothing
//! waits.
//!
//! A trace that comes from a backend or a trusted proxy is made if its sender makes it; of those that begin here a share
//! is. A stranger's word counts for the same share and a few traces a second ([`Sender`]). Without a collector no span is
//! made, and what comes from outside is passed on as it is.

mod exporter;
mod settings;
mod span;

pub use exporter::{ExportTarget, InvalidEndpoint};
pub use settings::TracingSettings;
pub use span::{Sender, Span, SpanKind, Tracer};
