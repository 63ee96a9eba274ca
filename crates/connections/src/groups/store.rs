use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use thiserror::Error;

use super::Changes;
use super::members::{GroupMember, Members};
use crate::session::Outbox;
use tidegate_core::id::ConnectionId;
use tidegate_core::request_context::Connection;
use tidegate_core::topic::{Topic, TopicKind, TopicName};

/// The members of every group and every user, among this node's connections.
#[derive(Debug, Default)]
pub struct Groups {
    topics: DashMap<Arc<Topic>, Members>,
    memberships: AtomicUsize,
    changes: Changes,
}

/// The size of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Number of groups and users that have a member.
    pub topics: usize,
    pub memberships: usize,
}

/// The reason why a connection did not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JoinRefused {
    #[error("the connection is over")]
    Gone,
    #[error("the connection has reached its limit of groups")]
    TooMany,
}

impl Groups {
    /// Puts an open connection into a group, or a user on it. If it is there already, nothing changes. A connection is
    /// in at most `most` groups, the users on it included.
    ///
    /// # Errors
    /// [`JoinRefused::Gone`] and [`JoinRefused::TooMany`].
    pub fn join(
        &self,
        connection: &Connection,
        outbox: &Arc<Outbox>,
        name: TopicName,
        most: usize,
    ) -> Result<(), JoinRefused> {
        let topic = Topic { api_id: Arc::clone(&connection.api_id), name };
        let member = GroupMember { id: connection.id, outbox: Arc::clone(outbox) };
        let joined = connection.topics.with(|topics| {
            if topics.len() >= most {
                let is_in = topics.iter().any(|joined| **joined == topic);
                return if is_in { Ok(()) } else { Err(JoinRefused::TooMany) };
            }
            if let Some(shared) = self.insert(topic, member) {
                if topics.is_empty() {
                    // Most connections are in a single group.
                    topics.reserve_exact(1);
                }
                topics.push(shared);
            }
            Ok(())
        });
        joined.unwrap_or(Err(JoinRefused::Gone))
    }

    /// Adds a member. Returns the name for the connection to share, or `None` if the member was there before.
    fn insert(&self, topic: Topic, member: GroupMember) -> Option<Arc<Topic>> {
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

    /// Takes a connection out of a group. Returns false if the connection is over.
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

    /// Sets the users on an open connection to exactly `users`.
    ///
    /// # Errors
    /// [`JoinRefused::Gone`] and [`JoinRefused::TooMany`].
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

    /// Takes a connection that is over out of everything.
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

    /// Returns the changes, which are collected for the group index.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Returns all groups and users that have members.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.iter().map(|entry| Arc::clone(entry.key())).collect()
    }

    /// Marks every group and user that has members as changed.
    pub fn mark_all(&self) {
        self.topics.iter().for_each(|entry| self.changes.mark(entry.key()));
    }

    /// Returns the number of members of `topic`.
    pub fn count(&self, topic: &Topic) -> usize {
        self.topics.get(topic).map_or(0, |members| members.len())
    }

    /// Returns the groups that a connection is in, or the users that are on it, sorted. `None` if the connection is
    /// over.
    pub fn names(&self, connection: &Connection, kind: TopicKind) -> Option<Vec<TopicName>> {
        connection.topics.with(|topics| {
            let names = topics.iter().map(|topic| &topic.name).filter(|name| name.kind() == kind);
            let mut names: Vec<TopicName> = names.cloned().collect();
            names.sort_unstable();
            names
        })
    }

    /// Returns all members of `topic`.
    pub fn members(&self, topic: &Topic) -> Vec<GroupMember> {
        self.topics.get(topic).map(|members| members.all()).unwrap_or_default()
    }

    /// Returns the number of members of `topic`, and up to `limit` of them behind `after`, in the order of their ids.
    pub fn page(&self, topic: &Topic, after: Option<&ConnectionId>, limit: usize) -> (usize, Vec<ConnectionId>) {
        let found = self.topics.get(topic);
        found.map(|members| (members.len(), members.page(after, limit))).unwrap_or_default()
    }

    /// Returns the size of the store.
    pub fn size(&self) -> Size {
        Size { topics: self.topics.len(), memberships: self.memberships.load(Ordering::Relaxed) }
    }
}
