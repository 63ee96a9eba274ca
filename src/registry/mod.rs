//! This node's own map of its connections: the truth about which exist, which are open, and which have ended while
//! their backend does not know it yet.
//!
//! An entry is *connecting* until its `$connect` is answered, *open* while it is served, *ended* until its `$disconnect`
//! has been delivered; then it is gone. Every change goes through a method of [`Registry`], in one place and under the
//! lock of one shard, never across an await; a mirror in Redis can follow there.

mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use tokio::time::Instant;

use crate::id::{ConnectionId, NodeId};
use crate::request_context::Connection;
use crate::session::{Closing, Outbox};

pub use settings::{RegistrySettings, RegistryType};

/// The connections of this node.
#[derive(Debug)]
pub struct Registry {
    node: NodeId,
    entries: DashMap<ConnectionId, Entry>,
    /// Entries that are connecting or open.
    live: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    connection: Arc<Connection>,
    state: State,
}

#[derive(Debug)]
enum State {
    Connecting,
    Open(Arc<Outbox>),
    Ended(Ended),
}

/// A connection that is over while its `$disconnect` is not yet delivered.
#[derive(Clone, Debug)]
pub struct Ended {
    pub connection: Arc<Connection>,
    pub closing: Closing,
    /// The number of the next attempt to deliver the event, from 1.
    pub attempt: u32,
    /// When this node took the event, by its own clock.
    pub since: Instant,
}

/// An open connection and the way to its socket.
#[derive(Clone, Debug)]
pub struct Open {
    pub connection: Arc<Connection>,
    pub outbox: Arc<Outbox>,
}

impl Registry {
    /// An empty one for a new node.
    pub fn new() -> Self {
        Registry { node: NodeId::random(), entries: DashMap::new(), live: AtomicUsize::new(0) }
    }

    /// The node that all ids of this registry begin with.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Connections that are connecting or open.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Begins a connection, unless there are `limit` already: none → connecting.
    pub fn connect(&self, connection: &Arc<Connection>, limit: Option<usize>) -> bool {
        let within = |live: usize| limit.is_none_or(|limit| live < limit).then_some(live + 1);
        if self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return false;
        }
        let entry = Entry { connection: Arc::clone(connection), state: State::Connecting };
        self.entries.insert(connection.id, entry);
        true
    }

    /// `$connect` was accepted: connecting → open. From now on posts are taken.
    pub fn open(&self, id: &ConnectionId, outbox: Arc<Outbox>) {
        if let Some(mut entry) = self.entries.get_mut(id)
            && matches!(entry.state, State::Connecting)
        {
            entry.state = State::Open(outbox);
        }
    }

    /// `$connect` was refused, or never sent: connecting → none.
    pub fn refuse(&self, id: &ConnectionId) {
        if self.entries.remove_if(id, |_, entry| matches!(entry.state, State::Connecting)).is_some() {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The connection is over: connecting or open → ended. `false` if it was before.
    pub fn end(&self, id: &ConnectionId, closing: Closing) -> bool {
        let Some(mut entry) = self.entries.get_mut(id) else { return false };
        if matches!(entry.state, State::Ended(_)) {
            return false;
        }
        let connection = Arc::clone(&entry.connection);
        entry.state = State::Ended(Ended { connection, closing, attempt: 1, since: Instant::now() });
        self.live.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// An attempt to deliver the `$disconnect` failed: attempt n → n + 1, which is returned.
    pub fn retry(&self, id: &ConnectionId) -> Option<u32> {
        match &mut self.entries.get_mut(id)?.state {
            State::Ended(ended) => {
                ended.attempt = ended.attempt.saturating_add(1);
                Some(ended.attempt)
            }
            State::Connecting | State::Open(_) => None,
        }
    }

    /// The `$disconnect` is delivered, or nobody wants it: ended → none.
    pub fn settle(&self, id: &ConnectionId) -> bool {
        match self.entries.entry(*id) {
            MapEntry::Occupied(entry) if matches!(entry.get().state, State::Ended(_)) => {
                entry.remove();
                true
            }
            MapEntry::Occupied(_) | MapEntry::Vacant(_) => false,
        }
    }

    /// The connection, if it is open.
    pub fn get_open(&self, id: &ConnectionId) -> Option<Open> {
        let entry = self.entries.get(id)?;
        match &entry.state {
            State::Open(outbox) => Some(Open { connection: Arc::clone(&entry.connection), outbox: Arc::clone(outbox) }),
            State::Connecting | State::Ended(_) => None,
        }
    }

    /// The connection, if it has ended and its `$disconnect` is not yet delivered.
    pub fn get_ended(&self, id: &ConnectionId) -> Option<Ended> {
        match &self.entries.get(id)?.state {
            State::Ended(ended) => Some(ended.clone()),
            State::Connecting | State::Open(_) => None,
        }
    }

    /// Outboxes of all open connections.
    pub fn all_open(&self) -> Vec<Arc<Outbox>> {
        let outbox =
            |entry: &Entry| if let State::Open(outbox) = &entry.state { Some(Arc::clone(outbox)) } else { None };
        self.entries.iter().filter_map(|entry| outbox(entry.value())).collect()
    }

    /// Bytes that wait to be written in all send buffers, and in the fullest one. Looks at every connection.
    pub fn buffered_bytes(&self) -> (usize, usize) {
        let bytes = |entry: &Entry| if let State::Open(outbox) = &entry.state { outbox.buffered_bytes() } else { 0 };
        let all = self.entries.iter().map(|entry| bytes(entry.value()));
        all.fold((0, 0), |(sum, largest), bytes| (sum + bytes, bytes.max(largest)))
    }

    /// All connections whose backend does not know yet that they are over, or will be.
    pub fn all(&self) -> Vec<ConnectionId> {
        self.entries.iter().map(|entry| *entry.key()).collect()
    }

    /// Whether every connection is over and its backend knows it.
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
    use std::net::IpAddr;

    use super::*;
    use crate::clock::Timestamp;

    fn connection(registry: &Registry) -> Arc<Connection> {
        Arc::new(Connection {
            id: ConnectionId::random(registry.node()),
            api_id: "chat".into(),
            stage: "prod".into(),
            connected_at: Timestamp(0),
            host: "localhost".into(),
            secure: false,
            source_ip: IpAddr::from([127, 0, 0, 1]),
            user_agent: None,
        })
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
        assert!(registry.settle(&connection.id));
        assert!(!registry.settle(&connection.id));
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
