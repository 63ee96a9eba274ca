use std::sync::Arc;

use tokio::time::Instant;

use super::record::RecordState;
use crate::session::{Closing, Outbox};
use tidegate_core::request_context::Connection;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) connection: Arc<Connection>,
    pub(super) state: EntryState,
    pub(super) acknowledged: Acknowledged,
}

/// The state that the Redis replica last acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acknowledged {
    /// The replica's incarnation at that time. In a later one Redis may have lost the record.
    pub(super) incarnation: u32,
    /// [`Entry::mark`] of that state; 0 for none.
    pub(super) mark: u32,
}

/// The present state of an entry, as it is to be recorded.
#[derive(Debug)]
pub(super) struct PresentState {
    pub(super) connection: Arc<Connection>,
    pub(super) state: RecordState,
    pub(super) mark: u32,
}

impl Entry {
    /// Returns a number that tells the states of one entry apart.
    pub(super) fn mark(&self) -> u32 {
        match &self.state {
            EntryState::Connecting => 1,
            EntryState::Open(_) => 2,
            EntryState::Ended(ended) => ended.attempt.saturating_add(2),
        }
    }

    pub(super) fn record_state(&self) -> RecordState {
        match &self.state {
            EntryState::Connecting => RecordState::Connecting,
            EntryState::Open(_) => RecordState::Open,
            EntryState::Ended(EndedConnection { closing, attempt, .. }) => {
                RecordState::Ended { code: closing.code, reason: Arc::clone(&closing.reason), attempt: *attempt }
            }
        }
    }
}

#[derive(Debug)]
pub(super) enum EntryState {
    Connecting,
    Open(Arc<Outbox>),
    Ended(EndedConnection),
}

/// A connection that is over while its `$disconnect` is not yet delivered.
#[derive(Clone, Debug)]
pub struct EndedConnection {
    pub connection: Arc<Connection>,
    pub closing: Closing,
    /// Number of the next attempt to deliver the event, from 1.
    pub attempt: u32,
    /// Time when this node took over the event, by its own clock.
    pub since: Instant,
}

/// An open connection and the way to its socket.
#[derive(Clone, Debug)]
pub struct OpenConnection {
    pub connection: Arc<Connection>,
    pub outbox: Arc<Outbox>,
}
