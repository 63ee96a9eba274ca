use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tls::TlsSettings;

/// The sockets that the gateway listens on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenerSettings {
    /// Clients, and backends' `@connections` calls.
    pub public: PublicListener,

    /// Health, metrics, `@connections`. Keep it away from clients.
    pub internal: InternalListener,
}

/// The listener for clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PublicListener {
    /// IP address and port, such as `0.0.0.0:8080` or `[::]:8080`. Port 0 takes any free one.
    #[schemars(with = "String")]
    pub address: SocketAddr,

    /// Who may call `@connections` here.
    pub connections_api: ConnectionsApi,

    /// Networks (`10.0.0.0/8`) or addresses whose `X-Forwarded-For`, `-Proto` and `-Port` are believed.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<TrustedProxy>,

    /// Every connection begins with a PROXY header, version 1 or 2, and comes from one of `trustedProxies`; every other
    /// is closed.
    pub proxy_protocol: bool,

    /// Host names that are answered for: `chat.example.com`, `chat.example.com:8443` or `*.example.com`. Every other Host
    /// is 403. Empty = all.
    #[schemars(with = "Vec<String>")]
    pub allowed_hosts: Vec<HostPattern>,

    /// TLS 1.2 and 1.3 in place of plain connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// The listener for operators and backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InternalListener {
    /// IP address and port. Port 0 takes any free one.
    #[schemars(with = "String")]
    pub address: SocketAddr,

    /// Who may call `@connections` here.
    pub connections_api: ConnectionsApi,

    /// As of the public listener.
    #[schemars(with = "Vec<String>")]
    pub allowed_hosts: Vec<HostPattern>,

    /// As of the public listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// Who may call `@connections` on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionsApi {
    /// Requests signed with a configured key.
    AwsIam,
    /// Everybody who reaches the listener; signatures are not looked at.
    None,
    /// Nobody: the path does not exist here.
    Off,
}

impl Default for PublicListener {
    fn default() -> Self {
        PublicListener {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            connections_api: ConnectionsApi::AwsIam,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            allowed_hosts: Vec::new(),
            tls: None,
        }
    }
}

impl Default for InternalListener {
    fn default() -> Self {
        InternalListener {
            address: SocketAddr::from(([127, 0, 0, 1], 8081)),
            connections_api: ConnectionsApi::None,
            allowed_hosts: Vec::new(),
            tls: None,
        }
    }
}

/// A host name that a listener answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

impl HostPattern {
    /// Whether a Host is meant: without a port in the pattern, with any port.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let (name, port) = split_port(&host);
        let name = name.strip_suffix('.').unwrap_or(name);
        let (pattern, pattern_port) = split_port(&self.0);
        let name_matches = match pattern.strip_prefix("*.") {
            Some(parent) => {
                name.strip_suffix(parent).and_then(|rest| rest.strip_suffix('.')).is_some_and(|l| !l.is_empty())
            }
            None => name == pattern,
        };
        name_matches && (pattern_port.is_none() || port == pattern_port)
    }
}

/// A Host in two: the name, with its brackets if it is an IPv6 address, and the port.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = text.strip_prefix("*.").unwrap_or(&text);
        let is_host = plain.parse::<http::uri::Authority>().is_ok() && !plain.contains(['@', '*']) && !plain.is_empty();
        let error = format!("`{text}` is no host name such as `chat.example.com` or `*.example.com`");
        if is_host { Ok(HostPattern(text.to_ascii_lowercase())) } else { Err(error) }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.0
    }
}

/// A network, or one address, whose forwarding headers are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustedProxy(pub IpNet);

impl TryFrom<String> for TrustedProxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        network.map(TrustedProxy).map_err(|_| format!("`{text}` is no network such as `10.0.0.0/8` and no IP address"))
    }
}

impl From<TrustedProxy> for String {
    fn from(proxy: TrustedProxy) -> String {
        proxy.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_without_case_and_with_any_port_unless_one_is_named() {
        let check = |pattern: &str, host: &str, expected: bool| {
            let pattern = HostPattern::try_from(pattern.to_owned()).expect("a pattern");
            assert_eq!(pattern.matches(host), expected, "{pattern:?} {host}");
        };
        check("chat.example.com", "chat.example.com", true);
        check("Chat.example.com", "CHAT.example.com:8443", true);
        check("chat.example.com", "chat.example.com.:443", true);
        check("chat.example.com:443", "chat.example.com:443", true);
        check("chat.example.com:443", "chat.example.com", false);
        check("chat.example.com", "chat.example.com.evil.test", false);
        check("chat.example.com", "evilchat.example.com", false);
        check("*.example.com", "a.b.example.com:1", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", ".example.com", false);
        check("[::1]", "[::1]:8080", true);
        check("[::1]:8080", "[::1]:8081", false);
        check("127.0.0.1", "127.0.0.1:80", true);
        for text in ["", "*", "*.", "a b", "a/b", "https://a", "u@a", "a.*.b"] {
            assert!(HostPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
