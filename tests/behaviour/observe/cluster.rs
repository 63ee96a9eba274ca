//! Two nodes and their Redis.

use tidegate_connections::cluster::link::PeerLink;
use tidegate_testing::{RedisServer, Settings, TestGateway, eventually, within};

/// Two nodes of one cluster that reach each other.
pub(crate) struct TwoNodes {
    pub(crate) nodes: [TestGateway; 2],
    /// The configuration of a further node.
    pub(crate) settings: Settings,
    pub(crate) redis: RedisServer,
}

impl TwoNodes {
    pub(crate) async fn start(settings: &Settings) -> Self {
        let redis = RedisServer::start().await;
        let section = format!(
            "registry: {{ type: redis, url: \"{}\" }}\n\
             cluster: {{ address: 127.0.0.1:0, secret: a secret of sixteen characters, leaseMillis: 3000 }}",
            redis.url()
        );
        let settings = settings.clone().section(&section);
        let nodes = [settings.start().await, settings.start().await];
        for node in &nodes {
            within("a node is ready", node.gateway.ready()).await;
        }
        let is_linked =
            |node: &TestGateway| node.gateway.peers().iter().any(|peer| matches!(peer.link, PeerLink::Linked { .. }));
        eventually("the nodes are linked", || async { nodes.iter().all(is_linked) }).await;
        TwoNodes { nodes, settings, redis }
    }
}
