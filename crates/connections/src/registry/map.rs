use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use tokio::time::Instant;

use super::entry::{Acknowledged, Entry, EntryState, PresentState};
use super::{Backlog, Claims, EndedConnection, OpenConnection, RedisReplica, RegistryState, ServingGate};
use crate::session::{Closing, Outbox};
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::limits::LimitSettings;
use tidegate_core::request_context::Connection;

/// The connections of this node.
#[derive(Debug)]
pub struct Registry {
    /// Id of the node, as bits.
    pub(super) node: AtomicU64,
    pub(super) entries: DashMap<ConnectionId, Entry>,
    /// Number of entries that are connecting or open.
    pub(super) live: AtomicUsize,
    pub(super) gate: ServingGate,
    pub(super) replica: Option<Arc<RedisReplica>>,
    pub(super) claims: Claims,
    pub(super) backlog: Backlog,
    client_header_bytes: AtomicUsize,
}

/// The error of a connection that was not recorded and may not begin without a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRecorded;

impl Registry {
    /// Returns an empty registry for a new node, without a Redis replica.
    pub fn new() -> Self {
        Self::with(NodeId::random(), ServingGate::open_forever(), None)
    }

    /// Returns an empty registry for `node`, with the Redis replica `replica`. Its serving lease begins with the first
    /// proof of life. Whenever that lease runs out, clients are held for `hold`.
    pub fn replicated(node: NodeId, hold: Duration, replica: Arc<RedisReplica>) -> Self {
        Self::with(node, ServingGate::shut(hold), Some(replica))
    }

    fn with(node: NodeId, gate: ServingGate, replica: Option<Arc<RedisReplica>>) -> Self {
        let limits = LimitSettings::default();
        Registry {
            node: AtomicU64::new(node.to_bits()),
            entries: DashMap::new(),
            live: AtomicUsize::new(0),
            gate,
            replica,
            claims: Claims::new(),
            backlog: Backlog::new(limits.disconnect_backlog()),
            client_header_bytes: AtomicUsize::new(limits.client_header_bytes),
        }
    }

    /// Puts other limits in force.
    pub fn set_limits(&self, limits: &LimitSettings) {
        self.backlog.set_max(limits.disconnect_backlog());
        self.client_header_bytes.store(limits.client_header_bytes, Ordering::Relaxed);
    }

    /// Returns the number and the limit of the ended connections that wait.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Returns the number of bytes that are kept of a client's header, see [`LimitSettings::client_header_bytes`].
    pub fn client_header_bytes(&self) -> usize {
        self.client_header_bytes.load(Ordering::Relaxed)
    }

    /// Returns the node with whose id the ids of new connections begin.
    pub fn node(&self) -> NodeId {
        NodeId::from_bits(self.node.load(Ordering::Acquire))
    }

    /// Returns the serving lease: it says whether clients may be served now.
    pub fn gate(&self) -> &ServingGate {
        &self.gate
    }

    /// Returns the replica of this registry in Redis, if there is one.
    pub fn replica(&self) -> Option<&Arc<RedisReplica>> {
        self.replica.as_ref()
    }

    /// Returns the state of the Redis replica.
    pub fn state(&self) -> RegistryState {
        self.replica.as_ref().map_or(RegistryState::Memory, |replica| replica.state().borrow().clone())
    }

    /// Returns the records of dead nodes that this node has claimed.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Returns the number of connections that are connecting or open.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Returns the number of all entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Begins a connection, unless `limit` connections are live: none → connecting. Returns false if it did not.
    pub fn connect(&self, connection: &Arc<Connection>, limit: Option<usize>) -> bool {
        let within = |live: usize| limit.is_none_or(|limit| live < limit).then_some(live + 1);
        if self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return false;
        }
        let entry = Entry {
            connection: Arc::clone(connection),
            state: EntryState::Connecting,
            acknowledged: Acknowledged::default(),
        };
        self.entries.insert(connection.id, entry);
        if let Some(replica) = &self.replica {
            // Its record is written when `record` waits for it.
            replica.added(&connection.id);
        }
        true
    }

    /// Waits until the connection `id`, which has begun, is recorded. Without a Redis replica there is nothing to wait
    /// for, nor while Redis is away and unrecorded connections are accepted.
    ///
    /// # Errors
    /// [`NotRecorded`]: there is no record, and the connection may not go on without one.
    pub async fn record(&self, id: &ConnectionId) -> Result<(), NotRecorded> {
        let Some(replica) = &self.replica else { return Ok(()) };
        if replica.redis().is_attached() && replica.mark_and_wait(id).await.is_ok() {
            return Ok(());
        }
        if replica.accepts_unrecorded() { Ok(()) } else { Err(NotRecorded) }
    }

    /// Opens a connection, because `$connect` was accepted: connecting → open. From now on posts reach it. Returns
    /// false if this node has been fenced meanwhile: then the connection must not be served.
    pub fn open(&self, id: &ConnectionId, outbox: Arc<Outbox>) -> bool {
        {
            let Some(mut entry) = self.entries.get_mut(id) else { return false };
            if !matches!(entry.state, EntryState::Connecting) {
                return false;
            }
            entry.state = EntryState::Open(outbox);
        }
        self.changed(id);
        // Checked after the entry is open. `fence` first changes the node's id and then closes all open connections, so
        // either `fence` closes this one or the new id is seen here.
        id.node() == self.node()
    }

    /// Writes the record of a connection anew, because its principal has changed.
    pub fn rewrite(&self, id: &ConnectionId) {
        if let Some(mut entry) = self.entries.get_mut(id) {
            entry.acknowledged = Acknowledged::default();
        }
        self.changed(id);
    }

    /// Removes a connection whose `$connect` was refused or never sent: connecting → none.
    pub fn refuse(&self, id: &ConnectionId) {
        if self.entries.remove_if(id, |_, entry| matches!(entry.state, EntryState::Connecting)).is_some() {
            self.live.fetch_sub(1, Ordering::Relaxed);
            self.removed(id);
        }
    }

    /// Ends a connection: connecting or open → ended. Returns false if it had ended before.
    pub fn end(&self, id: &ConnectionId, closing: Closing) -> bool {
        {
            let Some(mut entry) = self.entries.get_mut(id) else { return false };
            if matches!(entry.state, EntryState::Ended(_)) {
                return false;
            }
            let connection = Arc::clone(&entry.connection);
            entry.state = EntryState::Ended(EndedConnection { connection, closing, attempt: 1, since: Instant::now() });
            self.live.fetch_sub(1, Ordering::Relaxed);
            // Before another task can settle the connection.
            self.backlog.add();
        }
        self.changed(id);
        true
    }

    /// Notes that an attempt to deliver the `$disconnect` failed: attempt n → n + 1, which is returned.
    pub fn retry(&self, id: &ConnectionId) -> Option<u32> {
        let attempt = match self.entries.get_mut(id).as_deref_mut() {
            Some(Entry { state: EntryState::Ended(ended), .. }) => {
                ended.attempt = ended.attempt.saturating_add(1);
                ended.attempt
            }
            Some(_) => return None,
            None => return self.claims.retry(id),
        };
        self.changed(id);
        Some(attempt)
    }

    /// Removes a connection whose `$disconnect` is delivered, or is not wanted by any backend: ended → none.
    pub fn settle(&self, id: &ConnectionId) -> bool {
        match self.entries.entry(*id) {
            MapEntry::Occupied(entry) if matches!(entry.get().state, EntryState::Ended(_)) => {
                entry.remove();
            }
            MapEntry::Occupied(_) => return false,
            MapEntry::Vacant(_) => return self.claims.settle(id),
        }
        self.backlog.remove(1);
        self.removed(id);
        // A connection of a node that was fenced may be held twice: as its own, and as claimed.
        self.claims.settle(id);
        true
    }

    /// Returns the connection, if it is open.
    pub fn get_open(&self, id: &ConnectionId) -> Option<OpenConnection> {
        let entry = self.entries.get(id)?;
        match &entry.state {
            EntryState::Open(outbox) => {
                Some(OpenConnection { connection: Arc::clone(&entry.connection), outbox: Arc::clone(outbox) })
            }
            EntryState::Connecting | EntryState::Ended(_) => None,
        }
    }

    /// Returns the connection, if it has ended and its `$disconnect` is not delivered yet. It may be one of a dead
    /// node.
    pub fn get_ended(&self, id: &ConnectionId) -> Option<EndedConnection> {
        match self.entries.get(id).as_deref() {
            Some(Entry { state: EntryState::Ended(ended), .. }) => Some(ended.clone()),
            Some(_) => None,
            None => self.claims.get(id),
        }
    }

    /// Does the same as [`Registry::get_ended`], if this node may send the event now. An event of a dead node whose
    /// claim is not fresh is queued again when the claim is renewed.
    pub fn begin_attempt(&self, id: &ConnectionId) -> Option<EndedConnection> {
        match self.entries.get(id).as_deref() {
            Some(Entry { state: EntryState::Ended(ended), .. }) => Some(ended.clone()),
            Some(_) => None,
            None => self.claims.begin_attempt(id),
        }
    }

    /// Returns the state of an entry, as it is to be recorded.
    pub(super) fn present(&self, id: &ConnectionId) -> Option<PresentState> {
        let entry = self.entries.get(id)?;
        let connection = Arc::clone(&entry.connection);
        Some(PresentState { connection, state: entry.record_state(), mark: entry.mark() })
    }

    /// Notes that the Redis replica has the state `mark` of an entry.
    pub(super) fn acknowledge(&self, id: &ConnectionId, mark: u32, incarnation: u32) {
        if let Some(mut entry) = self.entries.get_mut(id) {
            entry.acknowledged = Acknowledged { incarnation, mark };
        }
    }

    fn changed(&self, id: &ConnectionId) {
        if let Some(replica) = &self.replica {
            replica.mark(id);
        }
    }

    pub(super) fn removed(&self, id: &ConnectionId) {
        if let Some(replica) = &self.replica {
            replica.removed(id);
        }
    }

    /// Returns true if every connection is over and every `$disconnect` is delivered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Registry::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::clock::Timestamp;

    fn connection(registry: &Registry) -> Arc<Connection> {
        Arc::new(Connection::sample(ConnectionId::random(registry.node())))
    }

    fn outbox() -> Arc<Outbox> {
        Arc::new(Outbox::new(1024, Timestamp(0)))
    }

    #[test]
    fn a_connection_is_posted_to_only_while_it_is_open() {
        let registry = Registry::new();
        let connection = connection(&registry);
        assert!(registry.connect(&connection, None));
        assert!(registry.get_open(&connection.id).is_none());
        registry.open(&connection.id, outbox());
        assert!(registry.get_open(&connection.id).is_some());
        assert!(registry.end(&connection.id, Closing::lost()));
        assert!(registry.get_open(&connection.id).is_none());
        assert_eq!(registry.live(), 0);
    }

    #[test]
    fn an_ended_connection_stays_until_its_event_is_delivered() {
        let registry = Registry::new();
        let connection = connection(&registry);
        registry.connect(&connection, None);
        assert!(registry.end(&connection.id, Closing::lost()));
        assert!(!registry.end(&connection.id, Closing::drained()), "the first reason stands");
        assert_eq!(registry.retry(&connection.id), Some(2));
        let ended = registry.get_ended(&connection.id).unwrap();
        assert_eq!((ended.attempt, ended.closing), (2, Closing::lost()));
        assert_eq!(registry.backlog().waiting(), 1);
        assert!(registry.settle(&connection.id));
        assert!(!registry.settle(&connection.id));
        assert_eq!(registry.backlog().waiting(), 0);
        assert!(registry.is_empty());
    }

    #[test]
    fn a_refused_connection_leaves_nothing() {
        let registry = Registry::new();
        let connection = connection(&registry);
        assert!(registry.connect(&connection, Some(1)));
        assert!(!registry.connect(&connection, Some(1)), "the node is full");
        registry.refuse(&connection.id);
        assert_eq!(registry.live(), 0);
        assert!(!registry.end(&connection.id, Closing::lost()));
    }

    #[test]
    fn an_open_connection_cannot_be_refused_and_an_ended_one_cannot_open() {
        let registry = Registry::new();
        let connection = connection(&registry);
        registry.connect(&connection, None);
        registry.open(&connection.id, outbox());
        registry.refuse(&connection.id);
        assert!(registry.get_open(&connection.id).is_some());
        registry.end(&connection.id, Closing::lost());
        registry.open(&connection.id, outbox());
        assert!(registry.get_open(&connection.id).is_none());
    }
}
