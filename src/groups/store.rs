use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use thiserror::Error;

use super::Changes;
use super::members::{Member, Members};
use crate::id::ConnectionId;
use crate::request_context::Connection;
use crate::session::Outbox;
use crate::topic::{Topic, TopicKind, TopicName};

/// The members of every group and every user, among this node's connections.
#[derive(Debug, Default)]
pub struct Groups {
    topics: DashMap<Arc<Topic>, Members>,
    memberships: AtomicUsize,
    changes: Changes,
}

/// How much is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Groups and users that have a member.
    pub topics: usize,
    pub memberships: usize,
}

/// Why a connection did not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JoinRefused {
    #[error("the connection is over")]
    Gone,
    #[error("the connection is in as many groups as it may")]
    TooMany,
}

impl Groups {
    /// Puts an open connection into a group, or a user onto it; a second time changes nothing. A connection is in at
    /// most `most` things.
    ///
    /// # Errors
    /// It is over, or in as many as it may.
    pub fn join(
        &self,
        connection: &Connection,
        outbox: &Arc<Outbox>,
        name: TopicName,
        most: usize,
    ) -> Result<(), JoinRefused> {
        let topic = Topic { api_id: Arc::clone(&connection.api_id), name };
        let member = Member { id: connection.id, outbox: Arc::clone(outbox) };
        let joined = connection.topics.with(|topics| {
            if topics.len() >= most {
                let is_in = topics.iter().any(|joined| **joined == topic);
                return if is_in { Ok(()) } else { Err(JoinRefused::TooMany) };
            }
            if let Some(shared) = self.insert(topic, member) {
                if topics.is_empty() {
                    // Most connections are in one thing.
                    topics.reserve_exact(1);
                }
                topics.push(shared);
            }
            Ok(())
        });
        joined.unwrap_or(Err(JoinRefused::Gone))
    }

    /// The name that is shared from now on, unless the member was there before.
    fn insert(&self, topic: Topic, member: Member) -> Option<Arc<Topic>> {
        let (shared, is_new, is_first) = match self.topics.entry(Arc::new(topic)) {
            Entry::Occupied(mut entry) => {
                let is_new = entry.get_mut().insert(member);
                (Arc::clone(entry.key()), is_new, false)
            }
            Entry::Vacant(entry) => {
                let shared = Arc::clone(entry.key());
                entry.insert(Members::one(member));
                (shared, true, true)
            }
        };
        if !is_new {
            return None;
        }
        self.memberships.fetch_add(1, Ordering::Relaxed);
        if is_first {
            self.changes.mark(&shared);
        } else {
            self.changes.mark_count(&shared);
        }
        Some(shared)
    }

    /// Takes a connection out of a group. `false` if the connection is over.
    pub fn leave(&self, connection: &Connection, name: &TopicName) -> bool {
        let left = connection.topics.with(|topics| {
            if let Some(at) = topics.iter().position(|topic| topic.name == *name) {
                let topic = topics.swap_remove(at);
                topics.shrink_to(topics.len() * 2);
                self.remove(&topic, &connection.id);
            }
        });
        left.is_some()
    }

    /// From now on exactly these users are on an open connection.
    ///
    /// # Errors
    /// As [`Groups::join`].
    pub fn set_users(
        &self,
        connection: &Connection,
        outbox: &Arc<Outbox>,
        users: &[TopicName],
        most: usize,
    ) -> Result<(), JoinRefused> {
        for former in self.names(connection, TopicKind::User).ok_or(JoinRefused::Gone)? {
            if !users.contains(&former) {
                self.leave(connection, &former);
            }
        }
        users.iter().try_for_each(|user| self.join(connection, outbox, user.clone(), most))
    }

    /// The connection is over: it leaves everything.
    pub fn end(&self, connection: &Connection) {
        for topic in connection.topics.end() {
            self.remove(&topic, &connection.id);
        }
    }

    fn remove(&self, topic: &Arc<Topic>, id: &ConnectionId) {
        if let Entry::Occupied(mut entry) = self.topics.entry(Arc::clone(topic)) {
            if entry.get_mut().remove(id) {
                self.memberships.fetch_sub(1, Ordering::Relaxed);
            }
            if entry.get().len() == 0 {
                entry.remove();
                self.changes.mark(topic);
            } else {
                self.changes.mark_count(topic);
            }
        }
    }

    /// What has changed since somebody asked.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// All that have members.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.iter().map(|entry| Arc::clone(entry.key())).collect()
    }

    /// Everything that has members counts as changed.
    pub fn mark_all(&self) {
        self.topics.iter().for_each(|entry| self.changes.mark(entry.key()));
    }

    /// How many members there are.
    pub fn count(&self, topic: &Topic) -> usize {
        self.topics.get(topic).map_or(0, |members| members.len())
    }

    /// The groups that a connection is in, or the users that are on it, by name. `None` if it is over.
    pub fn names(&self, connection: &Connection, kind: TopicKind) -> Option<Vec<TopicName>> {
        connection.topics.with(|topics| {
            let names = topics.iter().map(|topic| &topic.name).filter(|name| name.kind() == kind);
            let mut names: Vec<TopicName> = names.cloned().collect();
            names.sort_unstable();
            names
        })
    }

    /// All members.
    pub fn members(&self, topic: &Topic) -> Vec<Member> {
        self.topics.get(topic).map(|members| members.all()).unwrap_or_default()
    }

    /// How many members there are, and up to `limit` of them behind `after`, in the order of their ids.
    pub fn page(&self, topic: &Topic, after: Option<&ConnectionId>, limit: usize) -> (usize, Vec<ConnectionId>) {
        let found = self.topics.get(topic);
        found.map(|members| (members.len(), members.page(after, limit))).unwrap_or_default()
    }

    /// How much is in it.
    pub fn size(&self) -> Size {
        Size { topics: self.topics.len(), memberships: self.memberships.load(Ordering::Relaxed) }
    }
}
