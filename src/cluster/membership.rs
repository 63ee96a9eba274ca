use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::id::NodeId;
use crate::redis_client::scripts::MISSING;

/// Refreshes that may wait for the beat at once; they share one look at Redis.
const REFRESH_REQUESTS: usize = 1024;

/// What this node knows of all nodes. The beat writes it, pushes and links read it; nobody asks Redis on the way of a
/// push.
#[derive(Debug)]
pub struct Membership {
    table: watch::Sender<Arc<Table>>,
    refresh: mpsc::Sender<oneshot::Sender<()>>,
}

/// Those who wait for the table to be read anew; the beat answers them.
pub type RefreshRequests = mpsc::Receiver<oneshot::Sender<()>>;

/// One state of the table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Other nodes, by their id: those in the index, and the dead whose tombstone was seen.
    pub members: HashMap<NodeId, Member>,
    /// Nodes that are gone for good: gone from the index and their key gone, at a look that could tell.
    pub departed: HashMap<NodeId, Instant>,
    /// Dead nodes that are in the index: what they left is not all taken over yet.
    pub dead: Vec<Member>,
    /// Since when this node has been attached to Redis without a break, if it is.
    pub attached_since: Option<Instant>,
}

/// Another node, as the index and its keys say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    /// `host:port` of its peer listener.
    pub advertise: String,
    /// Version of its program, for people.
    pub version: String,
    /// Lowest and highest link protocol that it speaks.
    pub protocol: (u16, u16),
    /// Highest record format that it reads.
    pub record: u16,
    pub key: NodeKey,
    pub lease_alive: bool,
}

/// The node key as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKey {
    Live { epoch: u64 },
    Dead { epoch: u64 },
    Missing,
}

impl NodeKey {
    /// As it stands in Redis, or as scripts call it when it is not there.
    pub fn to_text(self) -> String {
        match self {
            NodeKey::Live { epoch } => format!("live {epoch}"),
            NodeKey::Dead { epoch } => format!("dead {epoch}"),
            NodeKey::Missing => MISSING.to_owned(),
        }
    }
}

/// What a node's state means for a push to one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In the index and not dead; it may or may not be reachable.
    Known(Member),
    /// Condemned, or it has left: its connections are gone for good.
    Gone,
    /// Never heard of; `settled` if this node would have heard of it by now.
    Unknown { settled: bool },
}

impl Membership {
    /// An empty table, and the requests that the beat has to answer.
    pub fn new() -> (Self, RefreshRequests) {
        let (refresh, requests) = mpsc::channel(REFRESH_REQUESTS);
        (Membership { table: watch::Sender::new(Arc::default()), refresh }, requests)
    }

    /// The table as it is.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.borrow())
    }

    /// Tells of every new state of the table.
    pub fn watch(&self) -> watch::Receiver<Arc<Table>> {
        self.table.subscribe()
    }

    /// Puts a new state in place. Only the beat does.
    pub fn replace(&self, table: Table) {
        self.table.send_replace(Arc::new(table));
    }

    /// What is known of a node. `watch` is how long this node must have been attached to be sure of an absence.
    pub fn standing(&self, node: &NodeId, watch: Duration) -> Standing {
        let table = self.table();
        match table.members.get(node) {
            Some(Member { key: NodeKey::Dead { .. }, .. }) => Standing::Gone,
            Some(member) => Standing::Known(member.clone()),
            None if table.departed.contains_key(node) => Standing::Gone,
            None => Standing::Unknown { settled: table.attached_since.is_some_and(|since| since.elapsed() >= watch) },
        }
    }

    /// Waits until the table was read anew by a look that began after this call. `false` if Redis could not be asked.
    pub async fn refresh(&self) -> bool {
        let (done, refreshed) = oneshot::channel();
        self.refresh.try_send(done).is_ok() && refreshed.await.is_ok()
    }
}
