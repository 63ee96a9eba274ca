use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use tidegate_access::authorizer::AccessSettings;
use tidegate_access::iam::Credential;
use tidegate_access::usage::{ApiKey, UsagePlan};
use tidegate_connections::cluster::ClusterSettings;
use tidegate_connections::registry::RegistrySettings;
use tidegate_core::limits::{KeepAliveSettings, LimitSettings, ThrottleSettings};
use tidegate_gateway::data_plane::DisconnectSettings;
use tidegate_http::http_client::EgressSettings;
use tidegate_resources::{Api, DomainName};
use tidegate_server::ListenerSettings;
use tidegate_telemetry::TracingSettings;

/// The configuration of tidegate. Any string may contain `${env:NAME}`, `${env:NAME:-default}` or
/// `${file:/PATH}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "tidegate configuration")]
pub struct Config {
    /// The sockets that the gateway listens on.
    pub listeners: ListenerSettings,

    /// The registry of connections: in memory only, or with a copy in Redis.
    pub registry: RegistrySettings,

    /// The connections between nodes. Required with `registry.type: redis`, and only allowed then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterSettings>,

    /// The drain: the orderly end of a node.
    pub drain: DrainSettings,

    /// The delivery of `$disconnect` events.
    pub disconnect: DisconnectSettings,

    /// Region in the ARNs of policies and in `methodArn`.
    #[schemars(length(min = 1, max = 64))]
    pub region: String,

    /// Account id in the ARNs of policies and in `methodArn`: 12 digits.
    #[schemars(regex(pattern = r"^[0-9]{12}$"))]
    pub account_id: String,

    /// Limits on what clients and backends may do.
    pub limits: LimitSettings,

    /// The throttle for all APIs together, per node.
    pub throttle: ThrottleSettings,

    /// The pings by which the gateway notices that a client is gone.
    pub keep_alive: KeepAliveSettings,

    /// Beginning of callback URLs, such as `https://ws.example.com`. By default it is the client's Host if
    /// `allowedHosts`, a domain or `{apiId}.execute-api.localhost` at the listener's port names it, else the listener's
    /// own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_base_url: Option<String>,

    /// True if refused clients get the reason, in `x-tidegate-reason` and in error frames. For development.
    pub explain: bool,

    /// Traces: their destination, and the share of them that is recorded.
    pub tracing: TracingSettings,
    /// The private networks that backends may be in.
    pub egress: EgressSettings,

    /// Custom domain names by host name, with the stages that their paths lead to.
    pub domain_names: BTreeMap<String, DomainName>,

    /// Keys that may sign requests to `@connections` and to `$connect` routes with `AWS_IAM`.
    pub credentials: BTreeMap<String, Credential>,

    /// Keys that clients send with their `$connect`.
    pub api_keys: BTreeMap<String, ApiKey>,

    /// Throttles and quotas of the holders of API keys.
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
    /// Returns the settings that decide which clients may connect and which callers may push.
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

/// The drain: the orderly end of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DrainSettings {
    /// Time from SIGTERM to the end, within which sockets are closed and their `$disconnect` events sent.
    #[schemars(range(min = 100, max = 86_400_000))]
    pub grace_millis: u32,
}

impl Default for DrainSettings {
    fn default() -> Self {
        DrainSettings { grace_millis: 30_000 }
    }
}
