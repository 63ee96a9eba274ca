//! The group index: the keys in Redis that say which nodes have members of a group or a user, so that a message for a
//! group goes only to those. The index may be stale, so it is trusted only when it cannot hide a member:
//!
//! - A node whose part of the index is complete says so by a freshness lease, which lasts for [`FRESHNESS_LEASE`] by
//!   Redis's clock. A node without one is always asked, whatever the index says of it.
//! - A join waits until it is written in the index, or until the node's freshness lease has run out. So a member that a
//!   backend has been told of gets what is sent afterwards, from any node.
//! - When Redis does not answer, every node is asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::redis_replica::{Attachment, RedisReplica};
use crate::error_chain::chain;
use crate::groups::{Changes, Groups};
use crate::id::NodeId;
use crate::lock::lock;
use crate::redis_client::group_index::{self, IndexLookup, IndexWriter};
use crate::redis_client::{RedisCommand, RedisConnection, RedisError, read, scripts};
use crate::telemetry::RepeatedWarning;
use crate::topic::{Topic, TopicName};

/// Length of a freshness lease.
const FRESHNESS_LEASE: Duration = Duration::from_secs(1);

/// Longest time that this node counts on its freshness lease being seen by others. It is longer than
/// [`FRESHNESS_LEASE`], because Redis's clock may be slower than this node's.
const FRESHNESS_SEEN_MAX: Duration = Duration::from_millis(1100);

/// Time between two renewals of the freshness lease.
const FRESHNESS_INTERVAL: Duration = Duration::from_millis(300);

/// Most groups and users in one write.
const BATCH: usize = 256;

/// Most groups and users that one lookup asks Redis for. For more, every node is asked.
const FIND_MAX: usize = 256;

/// Longest time that a message waits for Redis to name the nodes; then every node is asked.
const FIND_TIMEOUT: Duration = Duration::from_millis(100);

/// Time for which Redis is not asked again after it did not answer.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// Time for which Redis must have answered before an outage counts as over.
const BLIND_QUIET: Duration = Duration::from_secs(60);

/// The group index of this node: it writes the node's own members, and finds the nodes that have others.
#[derive(Debug)]
pub struct GroupIndex {
    groups: Arc<Groups>,
    replica: Arc<RedisReplica>,
    /// Number of the last change that is written, of all that were ever marked; see [`Changes`].
    written: watch::Sender<u64>,
    /// Time until which other nodes may trust what the index says of this node.
    seen_fresh_until: Mutex<Option<Instant>>,
    lookups_paused_until: Mutex<Option<Instant>>,
    /// The warning that Redis does not answer which nodes have members.
    blind: RepeatedWarning,
    leaving: CancellationToken,
    left: CancellationToken,
}

/// The nodes that may have members of some groups and users.
#[derive(Clone, Debug, Default)]
pub struct MemberNodes {
    complete: HashSet<NodeId>,
    by_name: HashMap<TopicName, Vec<NodeId>>,
}

#[derive(Debug, Error)]
enum GroupIndexError {
    #[error("the Redis command failed")]
    Redis(#[source] RedisError),
    #[error("this node's key in Redis is `{0}`")]
    NotOurs(String),
}

/// The state of the writing task.
#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    generation: u64,
    /// The warning that the task cannot write.
    warning: RepeatedWarning,
}

/// The place where the task writes.
#[derive(Debug)]
struct Current {
    attachment: Attachment,
    incarnation: u32,
    writer: IndexWriter,
    /// Number of the last change that existed when the task began here. Until it is written, the index is not complete.
    complete_at: u64,
    renew_at: Instant,
    clock: RedisClock,
}

/// A reading of Redis's clock, and the time when it arrived.
#[derive(Clone, Copy, Debug)]
struct RedisClock {
    millis: u64,
    answered: Instant,
}

impl GroupIndex {
    /// Returns the index of the members in `groups`, which is written where `replica` writes. [`GroupIndex::run`] is
    /// its only task.
    pub fn new(groups: Arc<Groups>, replica: Arc<RedisReplica>) -> Self {
        let written = watch::Sender::new(0);
        GroupIndex {
            groups,
            replica,
            written,
            seen_fresh_until: Mutex::default(),
            lookups_paused_until: Mutex::default(),
            blind: RepeatedWarning::default(),
            leaving: CancellationToken::new(),
            left: CancellationToken::new(),
        }
    }

    /// Finds the nodes that may have members of `names`, which belong to `api_id`. Returns `None` if that is unknown:
    /// then every node may have some.
    pub async fn find(&self, api_id: &Arc<str>, names: HashSet<&TopicName>) -> Option<MemberNodes> {
        if names.len() > FIND_MAX || lock(&self.lookups_paused_until).is_some_and(|until| until > Instant::now()) {
            return None;
        }
        let connection = self.replica.connection().filter(RedisConnection::is_one_server)?;
        let names: Vec<TopicName> = names.into_iter().cloned().collect();
        let topics = names.iter().map(|name| Topic { api_id: Arc::clone(api_id), name: name.clone() });
        let call = group_index::find(self.replica.keys(), topics);
        let started = Instant::now();
        let answer = timeout(FIND_TIMEOUT, connection.run_one(call)).await.unwrap_or(Err(RedisError::TimedOut));
        self.replica.metrics().took("find", started.elapsed());
        match answer.and_then(group_index::found) {
            Ok(found) => {
                self.blind.over_after(BLIND_QUIET);
                Some(MemberNodes::new(names, &found))
            }
            Err(error) => {
                let why = chain(&error).to_string();
                if let Some(repeated) = self.blind.due(&why) {
                    warn!(error = why, repeated, "could not read the group index; asking every node");
                }
                *lock(&self.lookups_paused_until) = Some(Instant::now() + LOOKUP_PAUSE);
                None
            }
        }
    }

    /// Waits until all nodes can find everything that joined on this node before this call.
    pub async fn recorded(&self) {
        let mut written = self.written.subscribe();
        let mut marked = None;
        loop {
            // While no changes are collected, the join has no number. It gets one as soon as all members are written
            // anew.
            marked = marked.or_else(|| self.groups.changes().marked());
            if marked.is_some_and(|marked| *written.borrow_and_update() >= marked) {
                return;
            }
            let seen_fresh = lock(&self.seen_fresh_until).filter(|until| *until > Instant::now());
            let Some(until) = seen_fresh else { return };
            tokio::select! {
                _ = written.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Writes changes until `stop`, or until this node has left.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let _left = self.left.clone().drop_guard();
        let mut state = State::default();
        while let Some(is_current) = stop.run_until_cancelled(self.pass(&mut state)).await {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.leaving.cancelled() => break,
                () = self.groups.changes().work(), if is_current => {}
                () = sleep(FRESHNESS_INTERVAL) => {}
            }
        }
        self.pass(&mut state).await;
        let Some(Current { attachment, .. }) = state.current else { return };
        let give_up =
            RedisCommand::new("HDEL", self.replica.keys().freshness_leases()).arg(attachment.node.to_string());
        if let Err(error) = attachment.connection.run_one(give_up).await {
            debug!(error = %chain(&error), "could not give up the freshness lease; it runs out by itself");
        }
    }

    /// Writes what is still to be written, and nothing afterwards.
    pub async fn leave(&self) {
        self.leaving.cancel();
        self.left.cancelled().await;
    }

    /// Writes everything that has changed. Returns false if it cannot.
    async fn pass(&self, state: &mut State) -> bool {
        let is_current = match self.replica.attachment() {
            Some((attachment, incarnation)) if attachment.connection.is_one_server() => {
                let worked = self.write(state, attachment, incarnation).await;
                if let Err(error) = &worked {
                    let why = chain(error).to_string();
                    if let Some(repeated) = state.warning.due(&why) {
                        warn!(error = why, repeated, "could not write the group index; every push asks this node");
                    }
                }
                worked.is_ok()
            }
            _ => false,
        };
        if !is_current && state.current.take().is_some() {
            self.groups.changes().collect(false);
        }
        is_current
    }

    async fn write(&self, state: &mut State, attachment: Attachment, incarnation: u32) -> Result<(), GroupIndexError> {
        let current = match &mut state.current {
            Some(current) if current.is(&attachment, incarnation) => current,
            _ => {
                state.generation += 1;
                let begun = self.begin(attachment, incarnation, state.generation).await?;
                state.current.insert(begun)
            }
        };
        loop {
            let (topics, taken) = self.groups.changes().take(BATCH);
            let is_idle = topics.is_empty();
            if !is_idle {
                let keys = topics.iter().map(|topic| (self.replica.keys().topic(topic), self.groups.count(topic)));
                self.put(current, &keys.collect::<Vec<_>>()).await?;
            }
            let is_complete = taken >= current.complete_at;
            if is_complete {
                self.written.send_replace(taken);
            }
            if is_complete
                && Instant::now() >= current.renew_at
                && let Some(sent) = self.begin_freshness_lease(taken)
            {
                let until = current.clock.at(sent + FRESHNESS_LEASE);
                current.clock = self.write_freshness_lease(&current.attachment, &current.writer, until).await?;
                current.renew_at = sent + FRESHNESS_INTERVAL;
                state.warning.over();
                self.groups.changes().put_counts();
            }
            if is_idle {
                return Ok(());
            }
        }
    }

    /// Begins anew: marks all members to be written, and removes what the index says of this node and is not so.
    async fn begin(
        &self,
        attachment: Attachment,
        incarnation: u32,
        generation: u64,
    ) -> Result<Current, GroupIndexError> {
        let changes: &Changes = self.groups.changes();
        let writer = IndexWriter { node: attachment.node, epoch: attachment.epoch, generation };
        // The old freshness lease still counts for [`GroupIndex::recorded`]: a Redis that is rolled back may have it
        // again.
        let clock = self.write_freshness_lease(&attachment, &writer, 0).await?;
        changes.collect(true);
        self.groups.mark_all();
        let complete_at = changes.marked().unwrap_or(u64::MAX);
        let current = Current { attachment, incarnation, writer, complete_at, renew_at: Instant::now(), clock };
        self.remove_stale(&current).await?;
        Ok(current)
    }

    /// Removes what the index says of this node and is not so.
    async fn remove_stale(&self, current: &Current) -> Result<(), GroupIndexError> {
        let keys = self.replica.keys();
        let own: HashSet<String> = self.groups.topics().iter().map(|topic| keys.topic(topic)).collect();
        let mut cursor = 0_u64;
        loop {
            let scan = RedisCommand::new("SSCAN", keys.topics(current.writer.node))
                .arg(cursor.to_string())
                .arg("COUNT")
                .arg(BATCH.to_string());
            let answer = current.attachment.connection.run_one(scan).await;
            let (next, written): (u64, Vec<String>) = answer.and_then(read).map_err(GroupIndexError::Redis)?;
            // A group that came meanwhile is not removed for good: it is written afterwards.
            let stale: Vec<_> = written.into_iter().filter(|key| !own.contains(key)).map(|key| (key, 0)).collect();
            if !stale.is_empty() {
                self.put(current, &stale).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn put(&self, current: &Current, counts: &[(String, usize)]) -> Result<(), GroupIndexError> {
        let call = group_index::write(self.replica.keys(), &current.writer, counts);
        let started = Instant::now();
        let answer = current.attachment.connection.run_one(call).await;
        self.replica.metrics().took("members", started.elapsed());
        let answer: String = answer.and_then(read).map_err(GroupIndexError::Redis)?;
        if answer == scripts::OK { Ok(()) } else { Err(GroupIndexError::NotOurs(answer)) }
    }

    /// Returns the time from which a new freshness lease counts, now that the changes up to `taken` are written.
    /// Returns `None` if no lease may be given.
    ///
    /// Since the last lease ran out, joins have not waited. Everything that joined meanwhile must be written before the
    /// next lease.
    fn begin_freshness_lease(&self, taken: u64) -> Option<Instant> {
        let mut seen_fresh_until = lock(&self.seen_fresh_until);
        let sent = Instant::now();
        let is_seen_fresh = seen_fresh_until.is_some_and(|until| until > sent);
        let may = is_seen_fresh || self.groups.changes().marked().is_some_and(|marked| taken >= marked);
        if !may {
            return None;
        }
        // Set before Redis has answered: Redis may have accepted the lease even if the answer is lost.
        *seen_fresh_until = Some(sent + FRESHNESS_SEEN_MAX);
        Some(sent)
    }

    async fn write_freshness_lease(
        &self,
        attachment: &Attachment,
        writer: &IndexWriter,
        until: u64,
    ) -> Result<RedisClock, GroupIndexError> {
        let call = group_index::renew_freshness(self.replica.keys(), writer, until);
        let answer = attachment.connection.run_one(call).await.and_then(read);
        let (answer, millis): (String, u64) = answer.map_err(GroupIndexError::Redis)?;
        if answer == scripts::OK {
            Ok(RedisClock { millis, answered: Instant::now() })
        } else {
            Err(GroupIndexError::NotOurs(answer))
        }
    }
}

impl MemberNodes {
    fn new(names: Vec<TopicName>, found: &IndexLookup) -> Self {
        let nodes = |texts: &[String]| texts.iter().filter_map(|text| NodeId::parse(text).ok()).collect::<Vec<_>>();
        let by_name = names.into_iter().zip(found.holders.iter().map(|texts| nodes(texts))).collect();
        MemberNodes { complete: nodes(&found.complete).into_iter().collect(), by_name }
    }

    /// Returns true if `node` may have members of one of `names`.
    pub fn may_have(&self, node: &NodeId, names: &[TopicName]) -> bool {
        let has = |name: &TopicName| self.by_name.get(name).is_none_or(|nodes| nodes.contains(node));
        !self.complete.contains(node) || names.iter().any(has)
    }
}

impl Current {
    fn is(&self, attachment: &Attachment, incarnation: u32) -> bool {
        let key = |of: &Attachment| (of.node, of.epoch, of.serial);
        key(&self.attachment) == key(attachment) && self.incarnation == incarnation
    }
}

impl RedisClock {
    /// Returns the clock's value at `when`, or a little less, because it was read before the answer came.
    fn at(&self, when: Instant) -> u64 {
        let since = when.saturating_duration_since(self.answered).as_millis();
        self.millis.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_sure_is_asked() {
        let [a, b, c] = [(); 3].map(|()| NodeId::random());
        let [room, other] = ["room", "other"].map(|name| TopicName::group(name).unwrap());
        let texts = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect();
        let found = IndexLookup { complete: texts(&[a, b]), holders: vec![texts(&[b]), texts(&[a])] };
        let holders = MemberNodes::new(vec![room.clone(), other.clone()], &found);
        let check = |names: &[TopicName], expected: [bool; 3]| {
            assert_eq!([a, b, c].map(|node| holders.may_have(&node, names)), expected);
        };
        check(std::slice::from_ref(&room), [false, true, true]);
        check(std::slice::from_ref(&other), [true, false, true]);
        check(&[room, other], [true, true, true]);
        check(&[TopicName::user("room").unwrap()], [true, true, true]);
    }
}
