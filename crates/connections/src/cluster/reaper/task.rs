use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::dead_node::DeadNode;
use super::unreadable::{self, Aside};
use crate::cluster::{Membership, Times};
use crate::redis_client::{
    AttachedRedis, FromRedisValue, Keys, RedisCommand, RedisConnection, RedisError, Value, read,
};
use crate::registry::Registry;
use tidegate_core::error_chain::chain;
use tidegate_core::id::NodeId;
use tidegate_telemetry::{ReapingMetrics, RepeatedWarning};

/// Largest number of records of dead nodes that one node holds. It never holds more than it may have ended connections
/// of its own ([`crate::registry::Backlog`]). A larger bucket is read in parts.
const HELD_MAX: usize = 16_384;

/// Largest number of records that one call reads, writes back, or notes the outcomes of.
pub(super) const BATCH: usize = 256;

/// The settings of the reaper.
#[derive(Debug)]
pub struct ReaperSettings {
    pub times: Times,
    /// Time for which unreadable records are kept. Shorter in tests.
    pub unreadable_kept: Duration,
    /// Time between two checks of the unreadable records. Shorter in tests.
    pub unreadable_look: Duration,
}

impl ReaperSettings {
    /// Returns the settings for a cluster with these `times`.
    pub fn new(times: Times) -> Self {
        let (unreadable_kept, unreadable_look) = (unreadable::KEPT_FOR, unreadable::LOOK_INTERVAL);
        ReaperSettings { times, unreadable_kept, unreadable_look }
    }
}

/// The reaper of this node. [`Reaper::run`] is its only task.
#[derive(Debug)]
pub struct Reaper {
    pub(super) settings: ReaperSettings,
    pub(super) registry: Arc<Registry>,
    redis: Arc<AttachedRedis>,
    pub(super) membership: Arc<Membership>,
    pub(super) metrics: ReapingMetrics,
    pub(super) dead_nodes: BTreeMap<NodeId, DeadNode>,
    /// Unreadable records that were set aside, by their dead node.
    pub(super) asides: HashMap<NodeId, Aside>,
    /// Time of the next check of the unreadable records.
    pub(super) unreadable_at: Instant,
    /// Time of the next renewal of claims.
    keep_at: Instant,
    /// The warning that connections of dead nodes cannot be taken over.
    warning: RepeatedWarning,
}

#[derive(Debug, Error)]
pub(super) enum ReapError {
    #[error("a Redis command failed")]
    Redis(#[source] RedisError),
}

/// The connection, keys and node id of one pass.
pub(super) struct ReaperPass<'a> {
    pub(super) connection: &'a RedisConnection,
    pub(super) keys: &'a Keys,
    /// Id under which this node claims. A node that was fenced claims under its new id.
    pub(super) node: NodeId,
}

impl Reaper {
    /// Returns a reaper that holds no records yet and uses the connection in `redis`.
    pub fn new(
        settings: ReaperSettings,
        registry: Arc<Registry>,
        redis: Arc<AttachedRedis>,
        membership: Arc<Membership>,
        metrics: ReapingMetrics,
    ) -> Self {
        let now = Instant::now();
        Reaper {
            settings,
            registry,
            redis,
            membership,
            metrics,
            dead_nodes: BTreeMap::new(),
            asides: HashMap::new(),
            unreadable_at: now,
            keep_at: now,
            warning: RepeatedWarning::default(),
        }
    }

    /// Takes over connections until `stop`. A pass follows each heartbeat, each event that is over, and each pass that
    /// left records to read.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tables = self.membership.watch();
        let registry = Arc::clone(&self.registry);
        let mut is_behind = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = tables.changed() => if changed.is_err() { return },
                () = registry.claims().outcome() => {}
                () = sleep(if is_behind { Duration::ZERO } else { self.settings.times.heartbeat() }) => {}
            }
            tables.mark_unchanged();
            is_behind = match stop.run_until_cancelled(self.run_once()).await {
                Some(Ok(is_behind)) => {
                    self.warning.over();
                    is_behind
                }
                Some(Err(error)) => {
                    let why = chain(&error).to_string();
                    if let Some(repeated) = self.warning.due(&why) {
                        warn!(error = why, repeated, "cannot take over the connections of dead nodes; trying again");
                    }
                    false
                }
                None => return,
            };
        }
    }

    /// Carries out one pass: renews claims, notes outcomes, reads and claims records while there is room, and removes
    /// dead nodes of which nothing is left. Returns true if there is more to read at once.
    async fn run_once(&mut self) -> Result<bool, ReapError> {
        self.update_dead_nodes();
        let redis = Arc::clone(&self.redis);
        let Some(connection) = redis.connection() else { return Ok(false) };
        let pass = ReaperPass { connection: &connection, keys: redis.keys(), node: self.registry.node() };
        let now = Instant::now();
        if now >= self.keep_at {
            self.keep_claims(&pass).await?;
            self.keep_at = now + self.settings.times.heartbeat().mul_f64(0.9);
        }
        self.note_outcomes(&pass).await?;
        let mut is_behind = false;
        for view in self.registry.claims().views() {
            is_behind |= self.read_on(&pass, view.bucket).await?;
        }
        let dead: Vec<NodeId> = self.dead_nodes.keys().copied().collect();
        for node in dead {
            let is_due = self.dead_nodes.get(&node).is_some_and(|dead_node| dead_node.look_at <= Instant::now());
            if !is_due || !self.registry.gate().is_open() {
                continue;
            }
            match self.look(&pass, node).await {
                Ok(more) => is_behind |= more,
                // Damaged keys of one node must not keep the others from being handled.
                Err(ReapError::Redis(error)) if error.is_of_call() => self.say_damaged(node, &error),
                Err(error) => return Err(error),
            }
        }
        let left: usize = self.dead_nodes.values().map(|dead_node| dead_node.left).sum();
        self.metrics.set(left.max(self.registry.claims().claimed()));
        self.tend_unreadable(&pass).await?;
        Ok(is_behind)
    }

    fn say_damaged(&mut self, node: NodeId, error: &RedisError) {
        if let Some(dead_node) = self.dead_nodes.get_mut(&node)
            && !std::mem::replace(&mut dead_node.is_damaged, true)
        {
            let error = chain(error);
            warn!(%node, %error, "a Redis command on a dead node's keys failed; retrying at each heartbeat");
        }
    }

    /// Returns the largest number of records that this node may hold now.
    pub(super) fn held_max(&self) -> usize {
        HELD_MAX.min(self.registry.backlog().max()).max(1)
    }
}

impl ReaperPass<'_> {
    /// Sends one command and reads its answer.
    pub(super) async fn ask<T: FromRedisValue>(&self, call: RedisCommand) -> Result<T, ReapError> {
        self.ask_for(call, read).await
    }

    /// Sends a script and reads its answer with `read`.
    pub(super) async fn ask_for<T>(
        &self,
        call: RedisCommand,
        read: impl FnOnce(Value) -> Result<T, RedisError>,
    ) -> Result<T, ReapError> {
        self.connection.run_one(call).await.and_then(read).map_err(ReapError::Redis)
    }
}
