use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use tidegate_core::secret::Secret;

/// A key that clients send with their `$connect`. The key in `apiKeys` is the id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKey {
    /// Text that clients send.
    #[schemars(with = "String", length(min = 1, max = 1024))]
    pub value: Secret,

    /// True if the key is accepted.
    #[serde(default = "enabled_default")]
    pub enabled: bool,
}

/// The limits for the holders of API keys. The key in `usagePlans` is the id.
///
/// Connects, messages and posts to connections count, each for the API key of the client. `$disconnect` does not
/// count, and a connection can always be closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsagePlan {
    /// Stages of the plan: `API_ID:STAGE`.
    pub api_stages: Vec<String>,

    /// Ids of the keys of the plan. A key has at most one plan for a stage.
    pub api_keys: Vec<String>,

    /// Rate of each key on each node, for all stages of the plan together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<ThrottleSettings>,

    /// Number of uses of each key in a period, on all stages and nodes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaSettings>,
}

/// A bucket of `burstLimit` tokens that refills with `rateLimit` a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ThrottleSettings {
    /// Tokens a second.
    #[schemars(range(min = 0.001, max = 1e9))]
    pub rate_limit: f64,

    /// Size of the bucket; one second's worth of the rate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst_limit: Option<u32>,
}

/// A number of uses in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaSettings {
    /// Number of connects, messages and posts in one period.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub limit: u64,

    /// Length of a period. All periods begin at midnight in UTC, weeks on Monday.
    pub period: QuotaPeriod,
}

/// The time after which a count begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum QuotaPeriod {
    Day,
    Week,
    Month,
}

fn enabled_default() -> bool {
    true
}
