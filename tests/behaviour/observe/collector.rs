use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tidegate_testing::{TestBackend, eventually};

/// A collector of traces: takes OTLP over HTTP.
pub(crate) struct Collector {
    pub(crate) server: TestBackend,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Collector { server: TestBackend::start().await }
    }

    /// The section of a configuration that sends all traces here, soon.
    pub(crate) fn section(&self, more: &str) -> String {
        format!(
            "tracing: {{ otlpEndpoint: \"{}/v1/traces\", samplingRatio: 1, exportIntervalMillis: 10{more} }}",
            self.server.url()
        )
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.server.calls("").into_iter().map(|call| {
            assert_eq!(call.header("content-type"), "application/x-protobuf");
            ExportTraceServiceRequest::decode(call.body.clone()).expect("an OTLP request")
        });
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// The first span for which this holds, once it has come.
    pub(crate) async fn span(&self, what: &str, holds: impl Fn(&Span) -> bool) -> Span {
        eventually(what, async || self.spans().iter().any(&holds)).await;
        self.spans().into_iter().find(holds).unwrap()
    }
}

/// An attribute of a span, as text.
pub(crate) fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    match value {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
