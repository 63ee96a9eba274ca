use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The addresses of Redis, and this gateway's user there. Made from the settings of the registry.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    pub urls: RedisUrls,
    /// User name, instead of the one in the URLs.
    pub username: Option<String>,
    /// Password, instead of the one in the URLs.
    pub password: Option<Password>,
}

/// A URL, or the URLs of some nodes of a Redis Cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RedisUrls {
    One(RedisUrl),
    Cluster(Vec<RedisUrl>),
}

impl RedisUrls {
    /// Returns all URLs.
    pub fn all(&self) -> &[RedisUrl] {
        match self {
            RedisUrls::One(url) => std::slice::from_ref(url),
            RedisUrls::Cluster(urls) => urls,
        }
    }
}

impl JsonSchema for RedisUrls {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RedisUrls".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" }, "minItems": 1 })
    }
}

/// A URL, `redis://user:password@host:port/database`, or `rediss://` for TLS. It may contain a password, so it is never
/// printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Returns true if the URL can be used: it has a known scheme, over TCP, and any TLS checks certificates.
    pub fn is_valid(&self) -> bool {
        let scheme = self.0.split("://").next().unwrap_or_default();
        // `#insecure` would switch off the check of certificates.
        matches!(scheme, "redis" | "rediss") && !self.0.contains('#') && self.info().is_ok()
    }

    /// Returns true if the URL asks for TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.0.starts_with("rediss://")
    }

    /// Returns `host:port`, if Redis is reached over TCP.
    pub(super) fn address(&self) -> Option<String> {
        match self.info().ok()?.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(format!("{host}:{port}"))
            }
            _ => None,
        }
    }

    pub(super) fn info(&self) -> Result<ConnectionInfo, redis::RedisError> {
        self.0.as_str().into_connection_info()
    }
}

impl From<String> for RedisUrl {
    fn from(url: String) -> Self {
        RedisUrl(url)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A password, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(password: String) -> Self {
        Password(password)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_redis_over_tcp() {
        let check = |url: &str, expected: bool| assert_eq!(RedisUrl(url.to_owned()).is_valid(), expected, "{url}");
        check("redis://127.0.0.1:6379/0", true);
        check("redis://:secret@redis", true);
        check("rediss://user:pass%20word@redis.example.com:6380/2", true);
        check("redis://[::1]:6379", true);
        check("rediss://redis.example.com#insecure", false);
        check("redis://127.0.0.1:6379/x", false);
        check("redis+unix:///tmp/redis.sock", false);
        check("http://127.0.0.1", false);
        check("127.0.0.1:6379", false);
        check("", false);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let settings = RedisSettings {
            urls: RedisUrls::Cluster(vec![RedisUrl("redis://:hunter2@a".to_owned())]),
            username: None,
            password: Some(Password("hunter2".to_owned())),
        };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
