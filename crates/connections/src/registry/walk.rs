use std::collections::HashMap;
use std::sync::Arc;

use super::Registry;
use super::entry::{Acknowledged, Entry, EntryState};
use crate::redis_client::{BUCKETS, Keys};
use crate::session::Outbox;
use tidegate_core::id::ConnectionId;
use tidegate_core::request_context::Connection;
use tidegate_telemetry::StageLabels;

/// The methods that look at every connection.
impl Registry {
    /// Returns the outboxes of all open connections.
    pub fn all_open(&self) -> Vec<Arc<Outbox>> {
        let outbox =
            |entry: &Entry| if let EntryState::Open(outbox) = &entry.state { Some(Arc::clone(outbox)) } else { None };
        self.entries.iter().filter_map(|entry| outbox(entry.value())).collect()
    }

    /// Collects what `map` makes of each open connection of a stage.
    pub fn open_in<T>(&self, api_id: &str, stage: &str, map: impl Fn(ConnectionId, &Arc<Outbox>) -> T) -> Vec<T> {
        let mapped = |entry: &Entry| match &entry.state {
            EntryState::Open(outbox) if *entry.connection.api_id == *api_id && *entry.connection.stage == *stage => {
                Some(map(entry.connection.id, outbox))
            }
            EntryState::Open(_) | EntryState::Connecting | EntryState::Ended(_) => None,
        };
        self.entries.iter().filter_map(|entry| mapped(entry.value())).collect()
    }

    /// Returns the stages of all connections of this node, each with the number of the oldest configuration that
    /// admitted one of its connections.
    pub fn stages(&self) -> HashMap<StageLabels, u32> {
        let mut stages = HashMap::new();
        for entry in &self.entries {
            let connection = &entry.connection;
            let (api_id, stage) = (Arc::clone(&connection.api_id), Arc::clone(&connection.stage));
            let oldest = stages.entry(StageLabels { api_id, stage }).or_insert(connection.configuration);
            *oldest = connection.configuration.min(*oldest);
        }
        stages
    }

    /// Returns the bytes that wait to be written in all send buffers together, and in the fullest one.
    pub fn buffered_bytes(&self) -> (usize, usize) {
        let bytes =
            |entry: &Entry| if let EntryState::Open(outbox) = &entry.state { outbox.buffered_bytes() } else { 0 };
        let all = self.entries.iter().map(|entry| bytes(entry.value()));
        all.fold((0, 0), |(sum, largest), bytes| (sum + bytes, bytes.max(largest)))
    }

    /// Returns the connections that are over and whose `$disconnect` is not delivered, those of dead nodes among them.
    pub fn all_ended(&self) -> Vec<Arc<Connection>> {
        let ended = |entry: &Entry| matches!(entry.state, EntryState::Ended(_)).then(|| Arc::clone(&entry.connection));
        let own = self.entries.iter().filter_map(|entry| ended(entry.value()));
        own.chain(self.claims.all()).collect()
    }

    /// Returns all connections of this node, open or not, whose `$disconnect` is not delivered.
    pub fn all(&self) -> Vec<ConnectionId> {
        self.entries.iter().map(|entry| *entry.key()).collect()
    }

    /// Returns all entries by the bucket of their record, and whether the Redis replica has their present state.
    pub(super) fn by_bucket(&self, incarnation: u32) -> [Vec<(ConnectionId, bool)>; BUCKETS] {
        let mut buckets: [Vec<_>; BUCKETS] = std::array::from_fn(|_| Vec::new());
        for entry in &self.entries {
            let Acknowledged { incarnation: known, mark } = entry.acknowledged;
            let is_acknowledged = (known, mark) == (incarnation, entry.mark());
            buckets[Keys::bucket_of(entry.key())].push((*entry.key(), is_acknowledged));
        }
        buckets
    }
}
