use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AccessLogSettings;

/// A stage of an API. The key in `stages` is the stageName: `[A-Za-z0-9_-]{1,128}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stage {
    /// Values for `${stageVariables.name}`; sent in every event. Names `[A-Za-z0-9_]{1,64}`, at most 100.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stage_variables: BTreeMap<String, String>,

    /// Settings of every route that `routeSettings` does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_route_settings: Option<RouteSettings>,

    /// Settings by route key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub route_settings: BTreeMap<String, RouteSettings>,

    /// Access log: one line for each event; off when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log_settings: Option<AccessLogSettings>,

    /// Purpose of the stage; at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// Throttle and logs of a route or of a whole stage. The throttle is per node: a bucket of `throttlingBurstLimit`
/// tokens that refills with `throttlingRateLimit` tokens a second. Each connect and each message takes one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSettings {
    /// Tokens a second; unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 1e9))]
    pub throttling_rate_limit: Option<f64>,

    /// Size of the bucket; one second's worth of the rate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub throttling_burst_limit: Option<u32>,

    /// Level of the execution log: `OFF` logs nothing, `ERROR` failures, `INFO` every event. When absent, the stage's
    /// level, or `OFF`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging_level: Option<LoggingLevel>,

    /// Logs the beginnings of payloads too, at level `debug`. Payloads may contain confidential data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_trace_enabled: Option<bool>,

    /// Counts by route what is otherwise counted by stage. The value of a stage wins over those of its routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detailed_metrics_enabled: Option<bool>,
}

impl RouteSettings {
    /// Returns true if these settings have a throttle, so that the stage's throttle does not apply to the route.
    pub fn has_throttle(&self) -> bool {
        self.throttling_rate_limit.is_some() || self.throttling_burst_limit.is_some()
    }
}

/// Level of the execution log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LoggingLevel {
    #[default]
    Off,
    Error,
    Info,
}
