use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::TracingSettings;
use super::span::{Tracer, attribute};
use crate::Metrics;
use crate::loss::Loss;
use tidegate_core::clock::Clock;
use tidegate_core::error_chain::chain;
use tidegate_http::http_client::{Backend, Call, HttpClient};

/// Most spans of one post.
const BATCH_SPANS: usize = 512;

/// Largest answer of a collector that is read, in bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Longest time for exporting the last spans when the process ends.
const LAST_EXPORT: Duration = Duration::from_millis(300);

/// The destination of spans, checked.
#[derive(Debug)]
pub struct ExportTarget {
    uri: Uri,
    headers: HeaderMap,
}

/// The reason why the tracing settings are not valid. Values are not quoted, because they may be keys.
#[derive(Debug, Error)]
pub enum InvalidEndpoint {
    #[error("not an `http://` or `https://` URL with a host, such as `http://127.0.0.1:4318/v1/traces`")]
    Endpoint,
    #[error("`{0}` is not a valid header name, or its value is not valid")]
    Header(String),
}

impl ExportTarget {
    /// Checks the settings. Returns `None` if traces are off.
    ///
    /// # Errors
    /// Returns `Endpoint` if `otlpEndpoint` is not an HTTP URL with a host, and `Header` if a header is not valid.
    pub fn parse(settings: &TracingSettings) -> Result<Option<Self>, InvalidEndpoint> {
        let Some(endpoint) = &settings.otlp_endpoint else { return Ok(None) };
        let uri: Uri = endpoint.parse().map_err(|_| InvalidEndpoint::Endpoint)?;
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if !matches!(uri.scheme_str(), Some("http" | "https")) || !plain {
            return Err(InvalidEndpoint::Endpoint);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.otlp_headers {
            let header = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()));
            let (Ok(name), Ok(mut value)) = header else { return Err(InvalidEndpoint::Header(name.clone())) };
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(Some(ExportTarget { uri, headers }))
    }

    /// Starts the task that posts spans, and returns the tracer that records them.
    ///
    /// # Errors
    /// Returns `Endpoint` if the collector cannot be called at this address.
    pub fn start(
        self,
        settings: &TracingSettings,
        http_client: &HttpClient,
        metrics: &Metrics,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        aborting: CancellationToken,
    ) -> Result<Tracer, InvalidEndpoint> {
        let backend = http_client.backend(&self.uri, false, 1).map_err(|_| InvalidEndpoint::Endpoint)?;
        let (sender, receiver) = mpsc::channel(settings.queue_spans);
        let loss = Arc::new(Loss::new("spans", self.uri.authority().map_or("", |authority| authority.as_str())));
        let queue = SpanQueue { sender, loss: Arc::clone(&loss), full: metrics.trace_spans_lost("full") };
        let exporter = Exporter {
            http_client: http_client.clone(),
            backend,
            path_and_query: self.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: self.headers,
            resource: resource(&settings.service_name),
            interval: settings.export_interval(),
            timeout: settings.export_timeout(),
            exported: metrics.trace_spans_exported(),
            failed: metrics.trace_spans_lost("failed"),
            refused: metrics.trace_spans_lost("refused"),
            loss,
        };
        tasks.spawn(exporter.run(receiver, aborting));
        Ok(Tracer::new(clock, settings.sampling_ratio, queue))
    }
}

fn resource(service_name: &str) -> Resource {
    let text = |text: &str| Value::StringValue(text.to_owned());
    let attributes = vec![
        attribute("service.name", text(service_name)),
        attribute("service.version", text(env!("CARGO_PKG_VERSION"))),
    ];
    Resource { attributes, ..Resource::default() }
}

/// The queue of finished spans to the task that posts them. Never waits.
#[derive(Clone, Debug)]
pub(super) struct SpanQueue {
    sender: mpsc::Sender<Span>,
    loss: Arc<Loss>,
    full: Counter,
}

impl SpanQueue {
    pub(super) fn push(&self, span: Span) {
        if self.sender.try_send(span).is_err() {
            self.loss.lost(&self.full, 1, "the queue is full: the collector is too slow");
        }
    }
}

struct Exporter {
    http_client: HttpClient,
    backend: Arc<Backend>,
    path_and_query: PathAndQuery,
    headers: HeaderMap,
    resource: Resource,
    interval: Duration,
    timeout: Duration,
    exported: Counter,
    failed: Counter,
    refused: Counter,
    loss: Arc<Loss>,
}

impl Exporter {
    /// Collects spans for an interval, or until there are [`BATCH_SPANS`], and posts them. There is one post at a time.
    /// Meanwhile spans wait in the queue, and are lost when it is full.
    async fn run(self, mut spans: mpsc::Receiver<Span>, aborting: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let collected = tokio::select! {
                biased;
                () = aborting.cancelled() => break,
                collected = self.collect(&mut spans, &mut batch) => collected,
            };
            if !collected {
                return;
            }
            let taken = std::mem::take(&mut batch);
            tokio::select! {
                biased;
                () = aborting.cancelled() => break,
                () = self.export(taken, self.timeout) => {}
            }
        }
        while batch.len() < BATCH_SPANS
            && let Ok(span) = spans.try_recv()
        {
            batch.push(span);
        }
        if !batch.is_empty() {
            // The process allows only this much time; an unfinished post is lost with it.
            let _ = timeout(LAST_EXPORT, self.export(batch, LAST_EXPORT)).await;
        }
    }

    /// Collects spans into `batch`. Returns false once the last tracer is dropped. Cancelling loses nothing: spans that
    /// were received stay in the batch.
    async fn collect(&self, spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) -> bool {
        if spans.recv_many(batch, BATCH_SPANS).await == 0 {
            return false;
        }
        let due = Instant::now() + self.interval;
        while batch.len() < BATCH_SPANS {
            match timeout_at(due, spans.recv_many(batch, BATCH_SPANS - batch.len())).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        true
    }

    async fn export(&self, spans: Vec<Span>, timeout: Duration) {
        let count = spans.len();
        let scope = InstrumentationScope { name: "tidegate".to_owned(), ..InstrumentationScope::default() };
        let scope_spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let resource_spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans] };
        let body = Bytes::from(request.encode_to_vec());
        let call = || Call {
            method: Method::POST,
            path_and_query: self.path_and_query.clone(),
            headers: self.headers.clone(),
            body: body.clone(),
            timeout,
            answer_max_bytes: ANSWER_MAX_BYTES,
        };
        match self.http_client.send(&self.backend, call).await {
            Ok(answer) if answer.status.is_success() => {
                let rejected = ExportTraceServiceResponse::decode(answer.body).ok().and_then(|a| a.partial_success);
                let rejected = rejected.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0));
                if rejected > 0 {
                    self.loss.lost(&self.refused, rejected, "the collector rejected some of them");
                }
                self.exported.inc_by(count.saturating_sub(rejected) as u64);
                self.loss.arrived();
            }
            Ok(answer) => {
                self.loss.lost(&self.refused, count, &format!("the collector answered {}", answer.status));
            }
            Err(error) => self.loss.lost(&self.failed, count, &chain(&error).to_string()),
        }
    }
}
