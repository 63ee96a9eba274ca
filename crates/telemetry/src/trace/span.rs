use std::fmt;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, Status};

use super::exporter::SpanQueue;
use tidegate_core::clock::Clock;
use tidegate_core::limits::Throttle;
use tidegate_core::trace_context::TraceContext;

/// Most attributes of one span.
const ATTRIBUTES_MAX: usize = 32;

/// Most traces a second that this node records beyond `samplingRatio` because an untrusted client sampled them. Each
/// costs a post to the collector and room in its queue.
const STRANGERS_TRACES_PER_SECOND: f64 = 10.0;

/// The trust in the sender of a trace, which decides if its sampled flag is honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A proxy in `trustedProxies`, or a backend on the internal listener. Its traces are recorded if it records them.
    Trusted,
    /// Any other client. Of its traces the share `samplingRatio` is recorded, and a few a second more.
    Stranger,
    /// A caller whose signature is not checked yet. It is a stranger until [`Span::prove`].
    Unproven,
}

/// The side of a call that a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// The gateway answers a caller.
    Server,
    /// The gateway calls a backend or another node.
    Client,
    /// The gateway does work that no caller waits for.
    Internal,
}

/// A tracer that starts spans.
#[derive(Clone)]
pub struct Tracer {
    clock: Arc<dyn Clock>,
    sampling_ratio: f64,
    queue: Option<SpanQueue>,
    /// The bucket of strangers' traces.
    strangers: Arc<Strangers>,
}

/// The bucket of traces that are recorded because an untrusted client sampled them.
struct Strangers(Option<Throttle>);

impl Strangers {
    fn new() -> Arc<Self> {
        Arc::new(Strangers(Throttle::new(Some(STRANGERS_TRACES_PER_SECOND), None)))
    }

    fn admit(&self) -> bool {
        self.0.as_ref().is_some_and(Throttle::admit)
    }
}

/// A piece of work, from its start until it is dropped. A span that is not recorded costs only its context.
pub struct Span {
    context: TraceContext,
    recording: Option<Box<Recording>>,
}

struct Recording {
    span: OtlpSpan,
    clock: Arc<dyn Clock>,
    queue: SpanQueue,
    /// The bucket to take from at the end, until the caller has proved its identity.
    unproven: Option<Arc<Strangers>>,
}

impl Tracer {
    /// Returns a tracer that records no span and passes on the context from outside.
    pub fn off(clock: Arc<dyn Clock>) -> Self {
        Tracer { clock, sampling_ratio: 0.0, queue: None, strangers: Strangers::new() }
    }

    /// Returns a tracer that puts finished spans into `queue`.
    pub(super) fn new(clock: Arc<dyn Clock>, sampling_ratio: f64, queue: SpanQueue) -> Self {
        Tracer { clock, sampling_ratio, queue: Some(queue), strangers: Strangers::new() }
    }

    /// Starts the first span of this node in a trace: in that of `parent`, or in a new one.
    pub fn start(&self, name: &'static str, kind: SpanKind, parent: Option<TraceContext>) -> Span {
        let sampled = match parent {
            Some(parent) => parent.sampled,
            None => self.queue.is_some() && self.is_sampled(),
        };
        match &self.queue {
            Some(queue) if sampled => {
                let context = parent.map_or_else(|| TraceContext::new(self.clock.now(), true), TraceContext::child);
                Span::record(context, parent.map(|parent| parent.span_id), name, kind, &self.clock, queue)
            }
            Some(_) | None => {
                let context = parent.unwrap_or_else(|| TraceContext::new(self.clock.now(), false));
                Span { context, recording: None }
            }
        }
    }

    /// Starts the first span of this node in a trace that came with a request, if there is one. If the sampled flag of
    /// its sender is not honoured, the trace goes on unsampled.
    pub fn start_for(&self, name: &'static str, kind: SpanKind, sender: Sender, parent: Option<TraceContext>) -> Span {
        // Without a collector a trace from outside is passed on unchanged.
        let Some(parent) = parent.filter(|parent| parent.sampled && self.queue.is_some()) else {
            return self.start(name, kind, parent);
        };
        // The same share is recorded of these traces as of the traces that begin here.
        let is_made = sender == Sender::Trusted || self.is_sampled();
        match sender {
            Sender::Unproven if !is_made => {
                let mut span = self.start(name, kind, Some(parent));
                if let Some(recording) = &mut span.recording {
                    recording.unproven = Some(Arc::clone(&self.strangers));
                }
                span
            }
            Sender::Stranger if !is_made && !self.strangers.admit() => {
                self.start(name, kind, Some(TraceContext { sampled: false, ..parent }))
            }
            Sender::Trusted | Sender::Stranger | Sender::Unproven => self.start(name, kind, Some(parent)),
        }
    }

    fn is_sampled(&self) -> bool {
        rand::random::<f64>() < self.sampling_ratio
    }
}

impl Span {
    fn record(
        context: TraceContext,
        parent: Option<u64>,
        name: &'static str,
        kind: SpanKind,
        clock: &Arc<dyn Clock>,
        queue: &SpanQueue,
    ) -> Self {
        let span = OtlpSpan {
            trace_id: context.trace_id.to_be_bytes().to_vec(),
            span_id: context.span_id.to_be_bytes().to_vec(),
            parent_span_id: parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
            name: name.to_owned(),
            // The numbers of the OTLP enumeration.
            kind: match kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
            },
            start_time_unix_nano: clock.now_nanos(),
            flags: 1,
            ..OtlpSpan::default()
        };
        let recording = Recording { span, clock: Arc::clone(clock), queue: queue.clone(), unproven: None };
        Span { context, recording: Some(Box::new(recording)) }
    }

    /// Returns the place from which the next span of the trace continues.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Notes that the caller has proved its identity, so its trace is recorded.
    pub fn prove(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.unproven = None;
        }
    }

    /// Returns true if the span will be exported, so that it is worth computing attributes.
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Starts a span inside this one.
    pub fn child(&self, name: &'static str, kind: SpanKind) -> Span {
        match &self.recording {
            Some(recording) => {
                let parent = Some(self.context.span_id);
                Span::record(self.context.child(), parent, name, kind, &recording.clock, &recording.queue)
            }
            None => Span { context: self.context, recording: None },
        }
    }

    /// Sets an attribute, as text.
    pub fn set(&mut self, key: &'static str, value: impl fmt::Display) {
        if self.is_recording() {
            self.push(key, Value::StringValue(value.to_string()));
        }
    }

    /// Sets an attribute, as a number.
    pub fn set_number(&mut self, key: &'static str, value: i64) {
        self.push(key, Value::IntValue(value));
    }

    /// Sets an attribute that counts something.
    pub fn set_count(&mut self, key: &'static str, count: usize) {
        self.set_number(key, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Marks the work as failed.
    pub fn fail(&mut self, why: impl fmt::Display) {
        if let Some(recording) = &mut self.recording {
            recording.span.status = Some(Status { message: why.to_string(), code: StatusCode::Error.into() });
        }
    }

    fn push(&mut self, key: &'static str, value: Value) {
        if let Some(recording) = &mut self.recording
            && recording.span.attributes.len() < ATTRIBUTES_MAX
        {
            recording.span.attributes.push(attribute(key, value));
        }
    }
}

impl Drop for Span {
    /// Ends the span, and queues it if it is recorded.
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            let Recording { mut span, clock, queue, unproven } = *recording;
            if unproven.is_some_and(|strangers| !strangers.admit()) {
                return;
            }
            span.end_time_unix_nano = clock.now_nanos().max(span.start_time_unix_nano);
            queue.push(span);
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("context", &self.context).field("recording", &self.is_recording()).finish()
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("on", &self.queue.is_some()).finish_non_exhaustive()
    }
}

pub(super) fn attribute(key: &'static str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::clock::SystemClock;

    #[test]
    fn without_a_collector_a_foreign_trace_is_passed_on_as_it_is() {
        let tracer = Tracer::off(Arc::new(SystemClock));
        let parent = TraceContext { trace_id: 7, span_id: 8, sampled: true };
        let span = tracer.start("message", SpanKind::Server, Some(parent));
        assert!(!span.is_recording());
        assert_eq!(span.child("call", SpanKind::Client).context(), parent);
        let own = tracer.start("message", SpanKind::Server, None).context();
        assert!(!own.sampled && own.trace_id != 0 && own.span_id != 0);
    }
}
