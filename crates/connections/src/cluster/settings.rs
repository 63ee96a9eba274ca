use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use tidegate_core::secret::Secret;
use tidegate_http::tls::PeerTlsSettings;

/// The addresses, the secret and the times by which nodes form a cluster. Only with `registry.type: redis`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSettings {
    /// IP address and port that this node listens on for its peers. Port 0 takes any free one.
    #[schemars(with = "String")]
    pub address: SocketAddr,

    /// Host and port that it advertises to its peers; by default `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub advertise: Option<String>,

    /// The secret that all nodes of a cluster share and nobody else knows: at least 16 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 16, max = 1024))]
    pub secret: Option<Secret>,

    /// TLS of the links between nodes; without it the network between nodes has to be private. All nodes have it, or
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<PeerTlsSettings>,

    /// A node that is silent for this long is dead.
    #[schemars(range(min = 500, max = 600_000))]
    pub lease_millis: u32,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings {
            address: SocketAddr::from(([127, 0, 0, 1], 8082)),
            advertise: None,
            secret: None,
            tls: None,
            lease_millis: 5000,
        }
    }
}

impl ClusterSettings {
    /// Returns the lease `L`, from which all other times of the cluster follow.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_millis.into())
    }
}
