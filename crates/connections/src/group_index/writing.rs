//! The task that writes this node's own members and renews its freshness lease.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::GroupIndex;
use super::scripts::{self, IndexAnswer, IndexWriter};
use crate::groups::Changes;
use crate::redis_client::{Attachment, RedisCommand, RedisError, read};
use tidegate_core::error_chain::chain;
use tidegate_core::lock::lock;
use tidegate_telemetry::RepeatedWarning;

/// Length of a freshness lease.
const FRESHNESS_LEASE: Duration = Duration::from_secs(1);

/// Longest time that this node counts on its freshness lease being seen by others. It is longer than
/// [`FRESHNESS_LEASE`], because Redis's clock may be slower than this node's.
const FRESHNESS_SEEN_MAX: Duration = Duration::from_millis(1100);

/// Time between two renewals of the freshness lease.
const FRESHNESS_INTERVAL: Duration = Duration::from_millis(300);

/// Most groups and users in one write.
const BATCH: usize = 256;

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
        let give_up = RedisCommand::new("HDEL", self.redis.keys().freshness_leases()).arg(attachment.node.to_string());
        if let Err(error) = attachment.connection.run_one(give_up).await {
            debug!(error = %chain(&error), "could not give up the freshness lease; it runs out by itself");
        }
    }

    /// Writes everything that has changed. Returns false if it cannot.
    async fn pass(&self, state: &mut State) -> bool {
        let is_current = match self.redis.attachment() {
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
                let keys = topics.iter().map(|topic| (self.redis.keys().topic(topic), self.groups.count(topic)));
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
        let keys = self.redis.keys();
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
        let call = scripts::write(self.redis.keys(), &current.writer, counts);
        let started = Instant::now();
        let answer = current.attachment.connection.run_one(call).await;
        self.redis.metrics().took("members", started.elapsed());
        match answer.and_then(IndexAnswer::read).map_err(GroupIndexError::Redis)? {
            IndexAnswer::Done => Ok(()),
            IndexAnswer::Refused(found) => Err(GroupIndexError::NotOurs(found)),
        }
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
        let call = scripts::renew_freshness(self.redis.keys(), writer, until);
        let answer = attachment.connection.run_one(call).await.and_then(IndexAnswer::read_with_time);
        match answer.map_err(GroupIndexError::Redis)? {
            (IndexAnswer::Done, millis) => Ok(RedisClock { millis, answered: Instant::now() }),
            (IndexAnswer::Refused(found), _) => Err(GroupIndexError::NotOurs(found)),
        }
    }
}

impl Current {
    fn is(&self, attachment: &Attachment, incarnation: u32) -> bool {
        self.attachment.is_same(attachment) && self.incarnation == incarnation
    }
}

impl RedisClock {
    /// Returns the clock's value at `when`, or a little less, because it was read before the answer came.
    fn at(&self, when: Instant) -> u64 {
        let since = when.saturating_duration_since(self.answered).as_millis();
        self.millis.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}
