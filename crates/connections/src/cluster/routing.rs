use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, timeout};

use super::link::{Link, Links};
use super::recent_nodes::remember;
use super::{ClusterSettings, Membership, Standing};
use crate::redis_client::NodeKey;
use tidegate_core::id::NodeId;
use tidegate_core::lock::lock;
use tidegate_http::tls::PeerTls;
use tidegate_telemetry::LinkMetrics;

/// Longest time that a push waits for the table of members to be read anew, if it is for a node that this node has
/// never heard of.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time that a push then waits for the link to a node that was found.
const LINK_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest number of node ids that are remembered as unknown, so that stale ids do not cause a Redis command each time.
/// Beyond it the oldest is forgotten.
const UNKNOWN_MAX: usize = 4096;

/// This node as a member of a cluster: it finds where calls about other nodes' connections go.
#[derive(Debug)]
pub struct Cluster {
    pub links: Arc<Links>,
    pub membership: Arc<Membership>,
    unknown: Mutex<HashMap<NodeId, Instant>>,
}

/// The nodes beside this one.
#[derive(Clone, Debug, Default)]
pub struct OtherNodes {
    /// Nodes with a link, which can be asked.
    pub linked: Vec<Arc<Link>>,
    /// Nodes that may be alive and have no link now.
    pub unreachable: Vec<NodeId>,
}

/// The node that owns a connection, as far as it can be asked.
#[derive(Clone, Debug)]
pub enum Owner {
    /// A node with a link: ask it.
    Linked(Arc<Link>),
    /// A node that is gone for good, and its connections with it.
    Gone,
    /// A node that may be alive and has no link now; or nobody can tell.
    Unreachable,
}

/// The reason why this node cannot be a member of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClusterStartError {
    #[error("cluster.secret is not set; set the same secret on all nodes of the cluster")]
    NoSecret,
}

impl OtherNodes {
    /// Returns true if this node is alone.
    pub fn is_empty(&self) -> bool {
        self.linked.is_empty() && self.unreachable.is_empty()
    }

    /// Keeps the nodes for which `is_wanted` returns true.
    pub fn retain(&mut self, is_wanted: impl Fn(&NodeId) -> bool) {
        self.linked.retain(|link| is_wanted(&link.peer.node));
        self.unreachable.retain(is_wanted);
    }
}

impl Cluster {
    /// Returns a member without links. `advertise` is the address at which its peers reach it; `tls` was read from the
    /// files that `settings` names.
    ///
    /// # Errors
    /// [`ClusterStartError::NoSecret`].
    pub fn new(
        settings: &ClusterSettings,
        node: NodeId,
        advertise: String,
        tls: Option<Arc<PeerTls>>,
        membership: Arc<Membership>,
        metrics: LinkMetrics,
    ) -> Result<Self, ClusterStartError> {
        let secret = settings.secret.clone().ok_or(ClusterStartError::NoSecret)?;
        let links = Links::new(node, advertise, secret, settings.lease(), tls, Arc::clone(&membership), metrics);
        Ok(Cluster { links, membership, unknown: Mutex::default() })
    }

    /// Finds the node for a call about a connection of `node`. Asks Redis only if this node has never heard of `node`.
    pub async fn owner(&self, node: &NodeId) -> Owner {
        if let Some(owner) = self.known(node) {
            return owner;
        }
        if self.is_unknown(node) {
            return Owner::Gone;
        }
        // The look must have begun after the call came: a node that is new since the last look may hold the connection.
        if !timeout(REFRESH_TIMEOUT, self.membership.refresh()).await.unwrap_or(false) {
            return Owner::Unreachable;
        }
        match self.known(node) {
            // The table has the node now, and the links are learning of it at this moment.
            Some(Owner::Unreachable) => match self.links.linked(node, LINK_TIMEOUT).await {
                Some(link) => Owner::Linked(link),
                None => Owner::Unreachable,
            },
            Some(owner) => owner,
            None if matches!(self.standing(node), Standing::Unknown { settled: true }) => {
                self.remember_unknown(*node);
                Owner::Gone
            }
            None => Owner::Unreachable,
        }
    }

    /// Does what [`Cluster::owner`] does for many nodes at once: the table is read anew once for all nodes that this
    /// node has never heard of.
    pub async fn owners(&self, nodes: &[NodeId]) -> Vec<Owner> {
        let is_new = |node: &&NodeId| self.known(node).is_none() && !self.is_unknown(node);
        if let Some(first) = nodes.iter().find(is_new) {
            self.owner(first).await;
        }
        let owner = |node: &NodeId| match self.known(node) {
            Some(owner) => owner,
            None if self.is_unknown(node) => Owner::Gone,
            // The look that was just made did not find the node either.
            None if matches!(self.standing(node), Standing::Unknown { settled: true }) => Owner::Gone,
            None => Owner::Unreachable,
        };
        nodes.iter().map(owner).collect()
    }

    /// Returns all other nodes that may have connections.
    pub fn others(&self) -> OtherNodes {
        let (linked, table) = (self.links.all(), self.membership.table());
        let living = table.members.values().filter(|member| !matches!(member.key, NodeKey::Dead { .. }));
        // A node with a link may not be in the table yet. After it has lost its link it counts as unreachable, until
        // the table must have it: when this node is attached and the link has been gone for two leases.
        let is_sure = |since: &Instant| table.attached_since.is_some() && since.elapsed() > self.links.lease() * 2;
        let lost = self.links.lost().into_iter();
        let lost = lost.filter(|(node, since)| !table.members.contains_key(node) && !is_sure(since));
        let is_other = |node: &NodeId| {
            *node != self.links.node()
                && !table.departed.contains_key(node)
                && !self.links.has_departed(node)
                && linked.iter().all(|link| link.peer.node != *node)
        };
        let unreachable = living.map(|member| member.node).chain(lost.map(|(node, _)| node)).filter(is_other).collect();
        OtherNodes { linked, unreachable }
    }

    fn known(&self, node: &NodeId) -> Option<Owner> {
        if let Some(link) = self.links.get(node) {
            return Some(Owner::Linked(link));
        }
        if self.links.has_departed(node) {
            return Some(Owner::Gone);
        }
        match self.standing(node) {
            Standing::Gone => Some(Owner::Gone),
            Standing::Known(_) => Some(Owner::Unreachable),
            Standing::Unknown { .. } => None,
        }
    }

    fn standing(&self, node: &NodeId) -> Standing {
        self.membership.standing(node, self.links.lease())
    }

    fn is_unknown(&self, node: &NodeId) -> bool {
        lock(&self.unknown).contains_key(node)
    }

    fn remember_unknown(&self, node: NodeId) {
        remember(&mut lock(&self.unknown), UNKNOWN_MAX, node, Instant::now());
    }
}
