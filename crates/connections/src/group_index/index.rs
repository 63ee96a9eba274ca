use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{MemberNodes, scripts};
use crate::groups::Groups;
use crate::redis_client::{AttachedRedis, RedisConnection, RedisError};
use tidegate_core::error_chain::chain;
use tidegate_core::lock::lock;
use tidegate_core::topic::{Topic, TopicName};
use tidegate_telemetry::RepeatedWarning;

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
    pub(super) groups: Arc<Groups>,
    pub(super) redis: Arc<AttachedRedis>,
    /// Number of the last change that is written, of all that were ever marked; see [`Changes`](crate::groups::Changes).
    pub(super) written: watch::Sender<u64>,
    /// Time until which other nodes may trust what the index says of this node.
    pub(super) seen_fresh_until: Mutex<Option<Instant>>,
    lookups_paused_until: Mutex<Option<Instant>>,
    /// The warning that Redis does not answer which nodes have members.
    blind: RepeatedWarning,
    pub(super) leaving: CancellationToken,
    pub(super) left: CancellationToken,
}

impl GroupIndex {
    /// Returns the index of the members in `groups`, which is written in `redis`. [`GroupIndex::run`] is its only task.
    pub fn new(groups: Arc<Groups>, redis: Arc<AttachedRedis>) -> Self {
        let written = watch::Sender::new(0);
        GroupIndex {
            groups,
            redis,
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
        let connection = self.redis.connection().filter(RedisConnection::is_one_server)?;
        let names: Vec<TopicName> = names.into_iter().cloned().collect();
        let topics = names.iter().map(|name| Topic { api_id: Arc::clone(api_id), name: name.clone() });
        let call = scripts::find(self.redis.keys(), topics);
        let started = Instant::now();
        let answer = timeout(FIND_TIMEOUT, connection.run_one(call)).await.unwrap_or(Err(RedisError::TimedOut));
        self.redis.metrics().took("find", started.elapsed());
        match answer.and_then(scripts::found) {
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

    /// Writes what is still to be written, and nothing afterwards.
    pub async fn leave(&self) {
        self.leaving.cancel();
        self.left.cancelled().await;
    }
}
