use std::sync::{Mutex, MutexGuard};

use super::{Keys, RedisConnection};
use tidegate_core::id::NodeId;
use tidegate_core::lock::lock;
use tidegate_telemetry::RegistryMetrics;

/// The one connection of this node to Redis, while there is one, and the registration under which the node writes.
///
/// The heartbeat opens the connection. It attaches and detaches this cell through the registry's Redis replica;
/// everything else that needs Redis takes the connection from here, and goes on without Redis while there is none.
#[derive(Debug)]
pub struct AttachedRedis {
    keys: Keys,
    metrics: RegistryMetrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    attachment: Option<Attachment>,
    /// Number of times that Redis may have lost what it acknowledged.
    incarnation: u32,
}

/// A connection to Redis, and the registration of this node there.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub connection: RedisConnection,
    pub node: NodeId,
    pub epoch: u64,
    /// Number of the connection to Redis, which tells it from earlier ones of this process.
    pub serial: u64,
}

impl Attachment {
    /// Returns true if both are the same registration on the same connection.
    pub fn is_same(&self, other: &Attachment) -> bool {
        (self.node, self.epoch, self.serial) == (other.node, other.epoch, other.serial)
    }
}

impl AttachedRedis {
    /// Returns a cell without a connection. `keys` names the keys of all nodes, and `metrics` counts the commands.
    pub fn new(keys: Keys, metrics: RegistryMetrics) -> Self {
        AttachedRedis { keys, metrics, state: Mutex::default() }
    }

    /// Returns the names of the keys of all nodes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the metrics of Redis commands and of the registry's state.
    pub fn metrics(&self) -> &RegistryMetrics {
        &self.metrics
    }

    /// Returns the connection to Redis, while there is one.
    pub fn connection(&self) -> Option<RedisConnection> {
        self.lock().attachment.as_ref().map(|attachment| attachment.connection.clone())
    }

    /// Returns the attachment, while there is one, and the number of times that Redis may have lost data so far.
    pub fn attachment(&self) -> Option<(Attachment, u32)> {
        let state = self.lock();
        state.attachment.clone().map(|attachment| (attachment, state.incarnation))
    }

    /// Returns true while there is a connection.
    pub fn is_attached(&self) -> bool {
        self.lock().attachment.is_some()
    }

    /// Returns true if `attachment` is the present one.
    pub fn is_current(&self, attachment: &Attachment) -> bool {
        self.lock().attachment.as_ref().is_some_and(|current| current.is_same(attachment))
    }

    /// Returns the number of times that Redis may have lost what it acknowledged.
    pub fn incarnation(&self) -> u32 {
        self.lock().incarnation
    }

    /// Sets the attachment. Set `forgotten` if Redis may have lost what it acknowledged: the new incarnation makes
    /// every earlier acknowledgement worthless. Returns false if nothing has changed.
    pub fn attach(&self, attachment: Attachment, forgotten: bool) -> bool {
        let mut state = self.lock();
        if !forgotten && state.attachment.as_ref().is_some_and(|current| current.is_same(&attachment)) {
            return false;
        }
        state.incarnation = state.incarnation.wrapping_add(u32::from(forgotten));
        state.attachment = Some(attachment);
        true
    }

    /// Removes the attachment.
    pub fn detach(&self) {
        self.lock().attachment = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
