use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The destination of traces, and the share of them that is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TracingSettings {
    /// URL to which spans are posted, OTLP over HTTP with protobuf: `http://collector:4318/v1/traces`. If it is not
    /// set, no traces are recorded; those of clients and backends are passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub otlp_endpoint: Option<String>,

    /// Headers of every post to the collector, such as one with an API key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub otlp_headers: BTreeMap<String, String>,

    /// Name of the service in every span.
    #[schemars(length(min = 1, max = 256))]
    pub service_name: String,

    /// Share of the traces that begin here that are recorded. A trace from a trusted proxy, a signed call or the
    /// internal listener is recorded if its sender records it; of traces that other clients record, the same share and
    /// 10 a second more.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling_ratio: f64,

    /// Most spans that wait for the collector. More are lost and counted.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub queue_spans: usize,

    /// Time between posts of spans. A post is sent earlier if 512 spans wait.
    #[schemars(range(min = 10, max = 60_000))]
    pub export_interval_millis: u32,

    /// Longest time that the collector may take for one post. After that the spans of the post are lost and counted.
    #[schemars(range(min = 10, max = 60_000))]
    pub export_timeout_millis: u32,
}

impl Default for TracingSettings {
    fn default() -> Self {
        TracingSettings {
            otlp_endpoint: None,
            otlp_headers: BTreeMap::new(),
            service_name: "tidegate".to_owned(),
            sampling_ratio: 0.01,
            queue_spans: 8192,
            export_interval_millis: 1000,
            export_timeout_millis: 5000,
        }
    }
}

impl TracingSettings {
    pub(super) fn export_interval(&self) -> Duration {
        Duration::from_millis(self.export_interval_millis.into())
    }

    pub(super) fn export_timeout(&self) -> Duration {
        Duration::from_millis(self.export_timeout_millis.into())
    }
}
