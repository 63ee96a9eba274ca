use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HostPattern;
use tidegate_http::tls::TlsSettings;

/// The sockets that the gateway listens on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenerSettings {
    /// Listener for clients, and for backends' `@connections` calls.
    pub public: PublicListener,

    /// Listener for health checks, metrics and `@connections`. Keep it out of clients' reach.
    pub internal: InternalListener,
}

/// The listener for clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PublicListener {
    /// IP address and port, such as `0.0.0.0:8080` or `[::]:8080`. Port 0 takes any free port.
    #[schemars(with = "String")]
    pub address: SocketAddr,

    /// Callers that may use `@connections` here.
    pub connections_api: ConnectionsApi,

    /// Networks (`10.0.0.0/8`) or addresses of proxies whose `X-Forwarded-For`, `-Proto` and `-Port` headers are
    /// trusted.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<TrustedProxy>,

    /// Requires every connection to begin with a PROXY header, version 1 or 2, and to come from one of
    /// `trustedProxies`; closes all others.
    pub proxy_protocol: bool,

    /// Host names that requests may name: `chat.example.com`, `chat.example.com:8443` or `*.example.com`; a name
    /// without a port allows every port. A request with another Host gets 403. Empty = all hosts. Callback URLs begin
    /// with the client's Host if it is listed.
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
    /// IP address and port. Port 0 takes any free port.
    #[schemars(with = "String")]
    pub address: SocketAddr,

    /// Callers that may use `@connections` here.
    pub connections_api: ConnectionsApi,

    /// Host names that requests may name, as on the public listener. Empty = on a loopback address only its own names
    /// (`localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`), on any other address all.
    #[schemars(with = "Vec<String>")]
    pub allowed_hosts: Vec<HostPattern>,

    /// TLS, as on the public listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// Callers that may use `@connections` on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionsApi {
    /// Only requests signed with a configured key.
    AwsIam,
    /// Everybody who reaches the listener; signatures are ignored.
    None,
    /// Calls are not possible: the path does not exist here.
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

/// A network, or one address, of proxies whose forwarding headers are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustedProxy(pub IpNet);

impl TryFrom<String> for TrustedProxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        network
            .map(TrustedProxy)
            .map_err(|_| format!("`{text}` is neither a network such as `10.0.0.0/8` nor an IP address"))
    }
}

impl From<TrustedProxy> for String {
    fn from(proxy: TrustedProxy) -> String {
        proxy.0.to_string()
    }
}
