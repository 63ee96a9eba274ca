use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::redis_client::{Password, RedisSettings, RedisUrls};

/// The place where records of connections are kept beside this node's memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// `memory`: this node alone. `redis`: with a replica in Redis, for several nodes.
    #[serde(rename = "type")]
    pub registry_type: RegistryType,

    /// Address of Redis: `redis://HOST:PORT/DATABASE`, `rediss://` for TLS; a list of them is a Redis Cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<RedisUrls>,

    /// User name, instead of the one in the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub username: Option<String>,

    /// Password, instead of the one in the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1, max = 1024))]
    pub password: Option<Password>,

    /// Beginning of all keys, so that several gateways can share one Redis.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.:-]{1,64}$"))]
    pub key_prefix: String,

    /// Treatment of new connections while Redis is away.
    pub when_unavailable: WhenUnavailable,

    /// Most records a second that are written back after Redis has lost data.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rebuild_per_second: u32,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings {
            registry_type: RegistryType::Memory,
            url: None,
            username: None,
            password: None,
            key_prefix: "tidegate".to_owned(),
            when_unavailable: WhenUnavailable::Accept,
            rebuild_per_second: 20_000,
        }
    }
}

impl RegistrySettings {
    /// Returns the settings of the connection to Redis, if the registry has a replica there.
    pub fn redis(&self) -> Option<RedisSettings> {
        let urls = self.url.clone().filter(|_| self.registry_type == RegistryType::Redis)?;
        Some(RedisSettings { urls, username: self.username.clone(), password: self.password.clone() })
    }
}

/// Kinds of registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RegistryType {
    #[default]
    Memory,
    Redis,
}

/// Treatment of new connections while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenUnavailable {
    /// New connections are accepted, and recorded later.
    #[default]
    Accept,
    /// New connections get 503.
    Refuse,
}
