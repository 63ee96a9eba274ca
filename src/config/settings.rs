use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::apigatewayv2::{Api, DomainName};
use crate::authorizer::AccessSettings;
use crate::cluster::ClusterSettings;
use crate::data_plane::DisconnectSettings;
use crate::http_client::EgressSettings;
use crate::iam::Credential;
use crate::limits::{KeepAliveSettings, LimitSettings, ThrottleSettings};
use crate::registry::RegistrySettings;
use crate::server::ListenerSettings;
use crate::telemetry::TracingSettings;
use crate::usage::{ApiKey, UsagePlan};

/// The configuration of tidegate. Any string may hold `${env:NAME}`, `${env:NAME:-default}` or
/// `${file:/PATH}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "tidegate configuration")]
pub struct Config {
    /// The sockets that the gateway listens on.
    pub listeners: ListenerSettings,

    /// Where the truth about connections is kept.
    pub registry: RegistrySettings,

    /// How nodes reach each other. Only with `registry.type: redis`, and required then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterSettings>,

    /// How a node goes down.
    pub drain: DrainSettings,

    /// How `$disconnect` events are delivered.
    pub disconnect: DisconnectSettings,

    /// What ARNs in policies and in `methodArn` say.
    #[schemars(length(min = 1, max = 64))]
    pub region: String,

    /// What ARNs in policies and in `methodArn` say: 12 digits.
    #[schemars(regex(pattern = r"^[0-9]{12}$"))]
    pub account_id: String,

    /// Bounds of what clients and backends may do.
    pub limits: LimitSettings,

    /// The bucket of all APIs together, per node.
    pub throttle: ThrottleSettings,

    /// How the gateway notices that a peer is gone.
    pub keep_alive: KeepAliveSettings,

    /// Callback URLs begin so, such as `https://ws.example.com`. By default with the client's Host if `allowedHosts`, a
    /// domain or `{apiId}.execute-api.localhost` at the listener's port names it, else with the listener's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_base_url: Option<String>,

    /// Tells refused clients why, in `x-tidegate-reason` and in error frames. For development.
    pub explain: bool,

    /// Traces: where they go, and how many are made.
    pub tracing: TracingSettings,
    /// Which private networks backends may be in.
    pub egress: EgressSettings,

    /// Host names of one's own by name: what their paths lead to.
    pub domain_names: BTreeMap<String, DomainName>,

    /// Keys that may sign requests to `@connections` and to `$connect` routes with `AWS_IAM`.
    pub credentials: BTreeMap<String, Credential>,

    /// Keys that clients send with their `$connect`.
    pub api_keys: BTreeMap<String, ApiKey>,

    /// How much the holders of API keys may do.
    pub usage_plans: BTreeMap<String, UsagePlan>,

    /// WebSocket APIs by apiId.
    pub apis: BTreeMap<String, Api>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listeners: ListenerSettings::default(),
            registry: RegistrySettings::default(),
            cluster: None,
            drain: DrainSettings::default(),
            disconnect: DisconnectSettings::default(),
            region: "us-east-1".to_owned(),
            account_id: "000000000000".to_owned(),
            limits: LimitSettings::default(),
            throttle: ThrottleSettings::default(),
            keep_alive: KeepAliveSettings::default(),
            callback_base_url: None,
            explain: false,
            tracing: TracingSettings::default(),
            egress: EgressSettings::default(),
            domain_names: BTreeMap::new(),
            credentials: BTreeMap::new(),
            api_keys: BTreeMap::new(),
            usage_plans: BTreeMap::new(),
            apis: BTreeMap::new(),
        }
    }
}

impl Config {
    /// What decides who may enter and who may push.
    pub fn access(&self) -> AccessSettings<'_> {
        AccessSettings {
            region: &self.region,
            account_id: &self.account_id,
            credentials: &self.credentials,
            api_keys: &self.api_keys,
            usage_plans: &self.usage_plans,
            apis: &self.apis,
        }
    }
}

/// How a node goes down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DrainSettings {
    /// From SIGTERM to the end: sockets are closed and their `$disconnect` events sent within this time.
    #[schemars(range(min = 100, max = 86_400_000))]
    pub grace_millis: u32,
}

impl Default for DrainSettings {
    fn default() -> Self {
        DrainSettings { grace_millis: 30_000 }
    }
}
