use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HostPattern;
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

    /// Host names that are answered for: `chat.example.com`, `chat.example.com:8443` or `*.example.com`; any port unless
    /// one is named. Every other Host is 403. Empty = all. Callback URLs begin with the client's Host if it is listed.
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

    /// Host names that are answered for, as on the public listener. Empty = on a loopback address its own names
    /// (`localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`), on any other all.
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
