use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::redis_client::NodeKey;
use tidegate_core::id::NodeId;

/// Most refreshes that wait for the heartbeat at once; they share one look at Redis.
const REFRESH_REQUESTS: usize = 1024;

/// The knowledge that this node has of all nodes. The heartbeat writes it, and pushes and links read it, so that no
/// push to a known node waits for Redis.
#[derive(Debug)]
pub struct Membership {
    table: watch::Sender<Arc<NodeTable>>,
    refresh: mpsc::Sender<oneshot::Sender<()>>,
}

/// The requests to read the table anew, which the heartbeat answers.
pub type RefreshRequests = mpsc::Receiver<oneshot::Sender<()>>;

/// A state of the table.
#[derive(Clone, Debug, Default)]
pub struct NodeTable {
    /// Other nodes by their id: those in the index, and dead ones whose tombstone was seen.
    pub members: HashMap<NodeId, ClusterMember>,
    /// Nodes that are gone for good: they were neither in the index nor had a key, at a look that could tell.
    pub departed: HashMap<NodeId, Instant>,
    /// Dead nodes that are in the index: their connections are not all taken over yet.
    pub dead: Vec<ClusterMember>,
    /// Time since which this node has been attached to Redis without a break, if it is attached.
    pub attached_since: Option<Instant>,
}

/// Another node, as its entry in the index and its keys describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMember {
    pub node: NodeId,
    /// `host:port` of its peer listener.
    pub advertise: String,
    /// Version of its program, for operators.
    pub version: String,
    /// Lowest and highest link protocol that it speaks.
    pub protocol: (u16, u16),
    /// Highest record format that it reads.
    pub record: u16,
    pub key: NodeKey,
    pub lease_alive: bool,
}

/// The state of a node, as it matters to a push to one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A node that is in the index and not dead; it may be reachable or not.
    Known(ClusterMember),
    /// A node that was condemned or has left: its connections are gone for good.
    Gone,
    /// A node that this one has never heard of. `settled` is true if it would have heard by now.
    Unknown { settled: bool },
}

impl Membership {
    /// Returns an empty table, and the requests that the heartbeat has to answer.
    pub fn new() -> (Self, RefreshRequests) {
        let (refresh, requests) = mpsc::channel(REFRESH_REQUESTS);
        (Membership { table: watch::Sender::new(Arc::default()), refresh }, requests)
    }

    /// Returns the table as it is.
    pub fn table(&self) -> Arc<NodeTable> {
        Arc::clone(&self.table.borrow())
    }

    /// Returns a receiver that is notified of every new state of the table.
    pub fn watch(&self) -> watch::Receiver<Arc<NodeTable>> {
        self.table.subscribe()
    }

    /// Puts a new state in place. Only the heartbeat does.
    pub fn replace(&self, table: NodeTable) {
        self.table.send_replace(Arc::new(table));
    }

    /// Returns what is known of `node`. To be sure of an absence, this node must have been attached for `watch`.
    pub fn standing(&self, node: &NodeId, watch: Duration) -> Standing {
        let table = self.table();
        match table.members.get(node) {
            Some(ClusterMember { key: NodeKey::Dead { .. }, .. }) => Standing::Gone,
            Some(member) => Standing::Known(member.clone()),
            None if table.departed.contains_key(node) => Standing::Gone,
            None => Standing::Unknown { settled: table.attached_since.is_some_and(|since| since.elapsed() >= watch) },
        }
    }

    /// Waits until the table was read anew by a look that began after this call. Returns false if the Redis command
    /// failed, or too many refreshes wait.
    pub async fn refresh(&self) -> bool {
        let (done, refreshed) = oneshot::channel();
        self.refresh.try_send(done).is_ok() && refreshed.await.is_ok()
    }
}
