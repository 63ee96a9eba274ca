use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The delivery of `$disconnect` events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DisconnectSettings {
    /// `$disconnect` calls in flight per integration.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: u16,

    /// Time for which the delivery of an event is retried. Then the event is given up: logged as an error and counted.
    #[schemars(range(max = 604_800))]
    pub retry_seconds: u32,
}

impl Default for DisconnectSettings {
    fn default() -> Self {
        DisconnectSettings { concurrency: 64, retry_seconds: 3600 }
    }
}

impl DisconnectSettings {
    /// Returns the time for which the delivery of an event is retried.
    pub fn retry_time(&self) -> Duration {
        Duration::from_secs(self.retry_seconds.into())
    }
}
