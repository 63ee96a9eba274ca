use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How `$disconnect` events are delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DisconnectSettings {
    /// `$disconnect` calls in flight per integration.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: u16,

    /// How long an event is tried; then it is given up: logged as an error and counted.
    #[schemars(range(max = 604_800))]
    pub retry_seconds: u32,
}

impl Default for DisconnectSettings {
    fn default() -> Self {
        DisconnectSettings { concurrency: 64, retry_seconds: 3600 }
    }
}

impl DisconnectSettings {
    /// How long an event is tried.
    pub fn retry_time(&self) -> Duration {
        Duration::from_secs(self.retry_seconds.into())
    }
}
