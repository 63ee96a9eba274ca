use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::MOST;
use crate::groups::PushCounts;
use crate::session::{DataFrame, Outbox};
use tidegate_core::clock::Timestamp;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::request_context::Connection;
use tidegate_core::topic::TopicName;

/// A life of a client's connection.
pub(super) struct Life {
    pub(super) node: usize,
    pub(super) connection: Connection,
    pub(super) outbox: Arc<Outbox>,
    pub(super) is_lost: bool,
    /// Pushes that wait for its socket, and those that it has received, by the model.
    pub(super) waiting: Vec<usize>,
    pub(super) received: Vec<usize>,
    /// Frames that were really written.
    pub(super) written: Vec<DataFrame>,
}

impl Life {
    pub(super) fn begin(node: usize) -> Self {
        let connection = Connection::sample(ConnectionId::random(NodeId::from_bits(node as u64)));
        let outbox = Arc::new(Outbox::new(1024 * 1024, Timestamp(0)));
        let (waiting, received, written) = Default::default();
        Life { node, connection, outbox, is_lost: false, waiting, received, written }
    }
}

/// The members and the outcomes of pushes, computed as simply as possible.
#[derive(Default)]
pub(super) struct Model {
    pub(super) members: BTreeMap<TopicName, BTreeSet<ConnectionId>>,
    /// Counts by push and node.
    pub(super) counts: BTreeMap<(usize, usize), PushCounts>,
}

impl Model {
    pub(super) fn of(&self, id: &ConnectionId) -> BTreeSet<TopicName> {
        self.members.iter().filter(|(_, ids)| ids.contains(id)).map(|(name, _)| name.clone()).collect()
    }

    /// Adds a member. Returns false if the connection is in as many groups as it may be.
    pub(super) fn join(&mut self, id: ConnectionId, name: TopicName) -> bool {
        let names = self.of(&id);
        let fits = names.contains(&name) || names.len() < MOST;
        if fits {
            self.members.entry(name).or_default().insert(id);
        }
        fits
    }

    pub(super) fn leave_if(&mut self, id: &ConnectionId, leaves: impl Fn(&TopicName) -> bool) {
        self.members.iter_mut().filter(|(name, _)| leaves(name)).for_each(|(_, ids)| _ = ids.remove(id));
        self.members.retain(|_, ids| !ids.is_empty());
    }

    pub(super) fn push(&mut self, number: usize, names: &[TopicName; 2], lives: &mut [Life]) {
        let receives = |life: &Life| names.iter().any(|name| self.of(&life.connection.id).contains(name));
        for life in lives.iter_mut().filter(|life| receives(life)).collect::<Vec<_>>() {
            match life.is_lost {
                true => self.counts.entry((number, life.node)).or_default().gone += 1,
                false => life.waiting.push(number),
            }
        }
    }

    pub(super) fn write(&mut self, life: &mut Life) {
        for number in life.waiting.drain(..) {
            self.counts.entry((number, life.node)).or_default().delivered += 1;
            life.received.push(number);
        }
    }

    pub(super) fn lose(&mut self, life: &mut Life) {
        life.is_lost = true;
        for number in life.waiting.drain(..) {
            self.counts.entry((number, life.node)).or_default().gone += 1;
        }
    }
}
