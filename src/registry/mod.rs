//! This node's own map of its connections: the truth about which exist, which are open, and which have ended while
//! their backend does not know it yet.
//!
//! An entry is *connecting* until its `$connect` is answered, *open* while it is served, *ended* until its `$disconnect`
//! has been delivered; then it is gone. Every change goes through a method of [`Registry`], in one place and under the
//! lock of one shard, never across an await, and there a [`Mirror`] in Redis follows it, if there is one. Nobody reads the
//! mirror while this node lives: Redis may be away, or forget, and is made equal later. A [`Roster`] beside it tells other
//! nodes of which groups and users there are members here.

mod backlog;
pub mod claims;
mod entry;
mod gate;
mod listing;
mod mirror;
pub mod record;
mod roster;
mod settings;
mod state;
mod walk;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::id::{ConnectionId, NodeId};
use crate::limits::LimitSettings;
use crate::request_context::Connection;
use crate::session::{Closing, Outbox};

pub use backlog::Backlog;
pub use claims::Claims;
pub use entry::{Ended, Open};
pub use gate::Gate;
pub use listing::{ConnectionView, Page, Query};
pub use mirror::{Attachment, Mirror};
pub use roster::{Holders, Roster};
pub use settings::{RegistrySettings, RegistryType, WhenUnavailable};
pub use state::RegistryState;

use entry::{Acknowledged, Entry, Present, State};

/// Closes all clients whenever the gate has been shut for as long as they are held, until `stop`.
pub async fn watch_gate(registry: Arc<Registry>, stop: CancellationToken) {
    while stop.run_until_cancelled(registry.gate.given_up()).await.is_some() {
        let connections = registry.isolate();
        if connections > 0 {
            error!(connections, "nobody says that this node may serve its clients; they are closed");
        }
        if stop.run_until_cancelled(registry.gate.opened()).await.is_none() {
            return;
        }
    }
}

/// The connections of this node.
#[derive(Debug)]
pub struct Registry {
    /// The bits of the node's id.
    node: AtomicU64,
    entries: DashMap<ConnectionId, Entry>,
    /// Entries that are connecting or open.
    live: AtomicUsize,
    gate: Gate,
    mirror: Option<Arc<Mirror>>,
    claims: Claims,
    backlog: Backlog,
    client_header_bytes: AtomicUsize,
}

/// A connection was not recorded, and may not begin without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRecorded;

impl Registry {
    /// An empty one for a new node, without a mirror.
    pub fn new() -> Self {
        Self::with(NodeId::random(), Gate::open_forever(), None)
    }

    /// An empty one for `node`, that `mirror` follows. Its gate is shut until there is proof that it may serve, and holds
    /// clients for `hold` whenever it shuts.
    pub fn mirrored(node: NodeId, hold: Duration, mirror: Arc<Mirror>) -> Self {
        Self::with(node, Gate::shut(hold), Some(mirror))
    }

    fn with(node: NodeId, gate: Gate, mirror: Option<Arc<Mirror>>) -> Self {
        let limits = LimitSettings::default();
        Registry {
            node: AtomicU64::new(node.to_bits()),
            entries: DashMap::new(),
            live: AtomicUsize::new(0),
            gate,
            mirror,
            claims: Claims::new(),
            backlog: Backlog::new(limits.disconnect_backlog()),
            client_header_bytes: AtomicUsize::new(limits.client_header_bytes),
        }
    }

    /// Other limits are in force.
    pub fn set_limits(&self, limits: &LimitSettings) {
        self.backlog.set_max(limits.disconnect_backlog());
        self.client_header_bytes.store(limits.client_header_bytes, Ordering::Relaxed);
    }

    /// The ended connections that wait, and how many may.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// What is kept of a client's header, see [`LimitSettings::client_header_bytes`].
    pub fn client_header_bytes(&self) -> usize {
        self.client_header_bytes.load(Ordering::Relaxed)
    }

    /// The node that the ids of new connections begin with.
    pub fn node(&self) -> NodeId {
        NodeId::from_bits(self.node.load(Ordering::Acquire))
    }

    /// Whether clients may be served now.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What follows this registry in Redis.
    pub fn mirror(&self) -> Option<&Arc<Mirror>> {
        self.mirror.as_ref()
    }

    /// How it stands with the mirror.
    pub fn state(&self) -> RegistryState {
        self.mirror.as_ref().map_or(RegistryState::Memory, |mirror| mirror.state().borrow().clone())
    }

    /// Whether a connection may be served at this moment: the gate is open, and the connection is of this node and not of
    /// one that was fenced.
    pub fn may_serve(&self, id: &ConnectionId) -> bool {
        id.node() == self.node() && self.gate.is_open()
    }

    /// What was claimed of dead nodes.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The old node id belongs to others, from now on this node is `node`. The gate is shut, every session of the old one
    /// is closed, and a client whose `$connect` is under way is refused when it is answered.
    ///
    /// With `others_have_records` the others hold every record that the mirror has acknowledged: those entries are
    /// dropped. Of the rest nobody may know: their `$disconnect` events are sent from here, recorded under the new id.
    pub fn fence(&self, node: NodeId, others_have_records: bool) {
        self.gate.close();
        self.node.store(node.to_bits(), Ordering::Release);
        for outbox in self.all_open() {
            outbox.close(Closing::fenced());
        }
        if others_have_records && let Some(mirror) = &self.mirror {
            let incarnation = mirror.incarnation();
            let mut dropped = Vec::new();
            self.entries.retain(|id, entry| {
                let is_mirrored = entry.acknowledged.mark != 0 && entry.acknowledged.incarnation == incarnation;
                if is_mirrored {
                    dropped.push((*id, !matches!(entry.state, State::Ended(_))));
                }
                !is_mirrored
            });
            for (id, was_live) in dropped {
                match was_live {
                    true => _ = self.live.fetch_sub(1, Ordering::Relaxed),
                    false => self.backlog.remove(1),
                }
                self.removed(&id);
            }
        }
    }

    /// Closes every session: this node must not serve, and does not hope any more that it may soon.
    pub fn isolate(&self) -> usize {
        let open = self.all_open();
        for outbox in &open {
            outbox.close(Closing::isolated());
        }
        open.len()
    }

    /// Connections that are connecting or open.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// All entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Begins a connection, unless there are `limit` already: none → connecting.
    pub fn connect(&self, connection: &Arc<Connection>, limit: Option<usize>) -> bool {
        let within = |live: usize| limit.is_none_or(|limit| live < limit).then_some(live + 1);
        if self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return false;
        }
        let entry = Entry {
            connection: Arc::clone(connection),
            state: State::Connecting,
            acknowledged: Acknowledged::default(),
        };
        self.entries.insert(connection.id, entry);
        if let Some(mirror) = &self.mirror {
            // It is written when somebody waits for it, see `record`.
            mirror.added(&connection.id);
        }
        true
    }

    /// Waits until a connection that has begun is recorded. Without a mirror, or while Redis is away and that is
    /// accepted, there is nothing to wait for.
    ///
    /// # Errors
    /// It is not recorded and may not go on.
    pub async fn record(&self, id: &ConnectionId) -> Result<(), NotRecorded> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        if mirror.is_attached() && mirror.mark_and_wait(id).await.is_ok() {
            return Ok(());
        }
        if mirror.takes_unrecorded() { Ok(()) } else { Err(NotRecorded) }
    }

    /// `$connect` was accepted: connecting → open. From now on posts are taken. `false` if this node has been fenced
    /// meanwhile: then the connection is not to be served.
    pub fn open(&self, id: &ConnectionId, outbox: Arc<Outbox>) -> bool {
        {
            let Some(mut entry) = self.entries.get_mut(id) else { return false };
            if !matches!(entry.state, State::Connecting) {
                return false;
            }
            entry.state = State::Open(outbox);
        }
        self.changed(id);
        // Looked at afterwards: whoever fences closes all that is open.
        id.node() == self.node()
    }

    /// Who is on a connection has changed: its record is written anew.
    pub fn rewrite(&self, id: &ConnectionId) {
        if let Some(mut entry) = self.entries.get_mut(id) {
            entry.acknowledged = Acknowledged::default();
        }
        self.changed(id);
    }

    /// `$connect` was refused, or never sent: connecting → none.
    pub fn refuse(&self, id: &ConnectionId) {
        if self.entries.remove_if(id, |_, entry| matches!(entry.state, State::Connecting)).is_some() {
            self.live.fetch_sub(1, Ordering::Relaxed);
            self.removed(id);
        }
    }

    /// The connection is over: connecting or open → ended. `false` if it was before.
    pub fn end(&self, id: &ConnectionId, closing: Closing) -> bool {
        {
            let Some(mut entry) = self.entries.get_mut(id) else { return false };
            if matches!(entry.state, State::Ended(_)) {
                return false;
            }
            let connection = Arc::clone(&entry.connection);
            entry.state = State::Ended(Ended { connection, closing, attempt: 1, since: Instant::now() });
            self.live.fetch_sub(1, Ordering::Relaxed);
            // Before anybody can settle it.
            self.backlog.add();
        }
        self.changed(id);
        true
    }

    /// An attempt to deliver the `$disconnect` failed: attempt n → n + 1, which is returned.
    pub fn retry(&self, id: &ConnectionId) -> Option<u32> {
        let attempt = match self.entries.get_mut(id).as_deref_mut() {
            Some(Entry { state: State::Ended(ended), .. }) => {
                ended.attempt = ended.attempt.saturating_add(1);
                ended.attempt
            }
            Some(_) => return None,
            None => return self.claims.retry(id),
        };
        self.changed(id);
        Some(attempt)
    }

    /// The `$disconnect` is delivered, or nobody wants it: ended → none.
    pub fn settle(&self, id: &ConnectionId) -> bool {
        match self.entries.entry(*id) {
            MapEntry::Occupied(entry) if matches!(entry.get().state, State::Ended(_)) => {
                entry.remove();
            }
            MapEntry::Occupied(_) => return false,
            MapEntry::Vacant(_) => return self.claims.settle(id),
        }
        self.backlog.remove(1);
        self.removed(id);
        // Of a node that was fenced it may be held twice: as its own, and as claimed.
        self.claims.settle(id);
        true
    }

    /// The connection, if it is open.
    pub fn get_open(&self, id: &ConnectionId) -> Option<Open> {
        let entry = self.entries.get(id)?;
        match &entry.state {
            State::Open(outbox) => Some(Open { connection: Arc::clone(&entry.connection), outbox: Arc::clone(outbox) }),
            State::Connecting | State::Ended(_) => None,
        }
    }

    /// The connection, if it has ended and its `$disconnect` is not yet delivered. It may be one of a dead node.
    pub fn get_ended(&self, id: &ConnectionId) -> Option<Ended> {
        match self.entries.get(id).as_deref() {
            Some(Entry { state: State::Ended(ended), .. }) => Some(ended.clone()),
            Some(_) => None,
            None => self.claims.get(id),
        }
    }

    /// As [`Registry::get_ended`], if the event may be sent from here now. One of a dead node whose claim is not fresh
    /// comes back by itself when the claim is renewed.
    pub fn take_up(&self, id: &ConnectionId) -> Option<Ended> {
        match self.entries.get(id).as_deref() {
            Some(Entry { state: State::Ended(ended), .. }) => Some(ended.clone()),
            Some(_) => None,
            None => self.claims.take_up(id),
        }
    }

    /// The state of an entry as it is to be recorded.
    fn present(&self, id: &ConnectionId) -> Option<Present> {
        let entry = self.entries.get(id)?;
        let connection = Arc::clone(&entry.connection);
        Some(Present { connection, state: entry.record_state(), mark: entry.mark() })
    }

    /// The mirror has this state of an entry.
    fn acknowledge(&self, id: &ConnectionId, mark: u32, incarnation: u32) {
        if let Some(mut entry) = self.entries.get_mut(id) {
            entry.acknowledged = Acknowledged { incarnation, mark };
        }
    }

    fn changed(&self, id: &ConnectionId) {
        if let Some(mirror) = &self.mirror {
            mirror.mark(id);
        }
    }

    fn removed(&self, id: &ConnectionId) {
        if let Some(mirror) = &self.mirror {
            mirror.removed(id);
        }
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
    use super::*;
    use crate::clock::Timestamp;

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
