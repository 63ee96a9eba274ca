//! The reaper: it claims the records of dead nodes, one bucket at a time, and gives a bucket back when its events are
//! over. The flow that takes [`crate::registry::Claims::events`] sends the events.

mod bucket;
mod unreadable;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decide::may_claim;
use super::node_index::NodeIndexEntry;
use super::{ClusterMember, Membership, Times};
use crate::error_chain::chain;
use crate::id::NodeId;
use crate::redis_client::{
    BUCKETS, FromRedisValue, Keys, RedisCommand, RedisConnection, RedisError, group_index, read, reaping, scripts,
};
use crate::registry::record::{RECORD_FORMAT, RecordTexts};
use crate::registry::{RedisReplica, Registry};
use crate::telemetry::{ReapingMetrics, RepeatedWarning};
use unreadable::Aside;

/// Largest number of records of dead nodes that one node holds. It never holds more than it may have ended connections
/// of its own ([`crate::registry::Backlog`]). A larger bucket is read in parts.
const HELD_MAX: usize = 16_384;

/// Largest number of records that one call reads, writes back, or notes the outcomes of.
const BATCH: usize = 256;

/// Largest number of calls in one pass that remove a dead node's entries from the group index. Each removes up to
/// [`BATCH`].
const CLEARS_MAX: usize = 64;

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
    settings: ReaperSettings,
    registry: Arc<Registry>,
    replica: Arc<RedisReplica>,
    membership: Arc<Membership>,
    metrics: ReapingMetrics,
    dead_nodes: BTreeMap<NodeId, DeadNode>,
    /// Unreadable records that were set aside, by their dead node.
    asides: HashMap<NodeId, Aside>,
    /// Time of the next check of the unreadable records.
    unreadable_at: Instant,
    /// Time of the next renewal of claims.
    keep_at: Instant,
    /// The warning that connections of dead nodes cannot be taken over.
    warning: RepeatedWarning,
}

/// A dead node of which records may be left.
#[derive(Debug)]
struct DeadNode {
    member: ClusterMember,
    since: Instant,
    /// Number of records that this node has taken over.
    taken: usize,
    /// Number of records that were left in Redis at the last check.
    left: usize,
    /// True if it was logged that this node takes over connections of the dead one.
    is_announced: bool,
    /// True if it was logged that a command on the dead node's keys failed.
    is_damaged: bool,
    /// Time of the next check.
    look_at: Instant,
    texts: Option<RecordTexts>,
}

#[derive(Debug, Error)]
enum ReapError {
    #[error("a Redis command failed")]
    Redis(#[source] RedisError),
}

/// The connection, keys and node id of one pass.
struct ReaperPass<'a> {
    connection: &'a RedisConnection,
    keys: &'a Keys,
    /// Id under which this node claims. A node that was fenced claims under its new id.
    node: NodeId,
}

impl Reaper {
    /// Returns a reaper that holds no records yet. `registry` has the replica `replica`.
    pub fn new(
        settings: ReaperSettings,
        registry: Arc<Registry>,
        replica: Arc<RedisReplica>,
        membership: Arc<Membership>,
        metrics: ReapingMetrics,
    ) -> Self {
        let now = Instant::now();
        Reaper {
            settings,
            registry,
            replica,
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
        let replica = Arc::clone(&self.replica);
        let Some(connection) = replica.connection() else { return Ok(false) };
        let pass = ReaperPass { connection: &connection, keys: replica.keys(), node: self.registry.node() };
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
    fn held_max(&self) -> usize {
        HELD_MAX.min(self.registry.backlog().max()).max(1)
    }

    /// Returns true if a living node can read more records of `dead` than this node can, because it writes the same
    /// format or a later one. The records are left to that node.
    fn has_better_reader(&self, dead: &ClusterMember) -> bool {
        let table = self.membership.table();
        let is_better = |member: &ClusterMember| member.lease_alive && member.record >= dead.record;
        dead.record > u16::from(RECORD_FORMAT) && table.members.values().any(is_better)
    }

    /// Adds nodes that have died and drops those that were removed.
    fn update_dead_nodes(&mut self) {
        let table = self.membership.table();
        for member in &table.dead {
            self.dead_nodes.entry(member.node).or_insert_with(|| DeadNode::new(member.clone()));
        }
        let held = self.registry.claims().views();
        self.dead_nodes.retain(|node, dead_node| {
            let is_dead = table.dead.iter().any(|member| member.node == *node);
            let is_held = held.iter().any(|view| view.bucket.0 == *node);
            // While Redis is down, a dead node that is missing from the table may still exist.
            let stays = is_dead || is_held || table.attached_since.is_none();
            if !stays {
                dead_node.end(node, "other nodes have removed");
            }
            stays
        });
    }

    /// Counts the records that are left of a dead node, claims free buckets while there is room, and removes the node
    /// if nothing is left. Returns true if there is more to read at once.
    async fn look(&mut self, pass: &ReaperPass<'_>, node: NodeId) -> Result<bool, ReapError> {
        let Some(dead_node) = self.dead_nodes.get_mut(&node) else { return Ok(false) };
        dead_node.look_at = Instant::now() + self.settings.times.heartbeat();
        let member = dead_node.member.clone();
        if self.has_better_reader(&member) {
            return Ok(false);
        }
        let counts = (0..BUCKETS).map(|bucket| RedisCommand::new("HLEN", pass.keys.bucket(node, bucket)));
        let claims = (0..BUCKETS).map(|bucket| RedisCommand::new("GET", pass.keys.claim(node, bucket)));
        let info = scripts::info(pass.connection, pass.keys, node, "server");
        let calls: Vec<RedisCommand> = counts.chain(claims).chain([info]).collect();
        let answers = pass.connection.run(&calls).await.map_err(ReapError::Redis)?;
        let (counted, claimed) = (answers.iter().take(BUCKETS), answers.iter().skip(BUCKETS).take(BUCKETS));
        let counts: Vec<usize> =
            counted.map(|answer| read(answer.clone())).collect::<Result<_, _>>().map_err(ReapError::Redis)?;
        let claimed: Vec<Option<String>> =
            claimed.map(|answer| read(answer.clone())).collect::<Result<_, _>>().map_err(ReapError::Redis)?;
        let info = answers.into_iter().next_back().ok_or(RedisError::Unexpected).and_then(read::<String>);
        let run_id = super::survey::run_id_of(&info.map_err(ReapError::Redis)?);
        let left = counts.iter().sum();
        if let Some(dead_node) = self.dead_nodes.get_mut(&node) {
            (dead_node.left, dead_node.is_damaged) = (left, false);
        }
        if left == 0 {
            return self.remove(pass, node).await.map(|()| false);
        }
        let held: Vec<usize> = self
            .registry
            .claims()
            .views()
            .iter()
            .filter(|view| view.bucket.0 == node)
            .map(|view| view.bucket.1)
            .collect();
        // A bucket that this node claimed and no longer holds, for example because another node has written records
        // back into it, still belongs to this node.
        let is_free = |bucket: usize| match &claimed[bucket] {
            Some(by) => *by == pass.node.to_string() && !held.contains(&bucket),
            None => true,
        };
        let mut is_behind = false;
        // Each node begins at another bucket, so that not all nodes try to claim the same one.
        let first = usize::try_from(pass.node.to_bits() % BUCKETS as u64).unwrap_or_default();
        for bucket in (0..BUCKETS).map(|offset| (first + offset) % BUCKETS) {
            let may_claim = may_claim(self.registry.claims().claimed(), counts[bucket], self.held_max());
            if counts[bucket] > 0 && is_free(bucket) && may_claim {
                is_behind |= self.claim(pass, (node, bucket), &run_id).await?;
            }
        }
        Ok(is_behind)
    }

    async fn remove(&mut self, pass: &ReaperPass<'_>, node: NodeId) -> Result<(), ReapError> {
        if self.registry.claims().views().iter().any(|view| view.bucket.0 == node && view.unfinished > 0) {
            // Redis has lost the records that are held here. They are written back when the claims are renewed.
            return Ok(());
        }
        if !self.clear(pass, node).await? {
            return Ok(());
        }
        let remove = reaping::remove(pass.keys, node, pass.node);
        let answer: String = pass.connection.run_one(remove).await.and_then(read).map_err(ReapError::Redis)?;
        if answer == scripts::OK {
            let index = RedisCommand::new("HDEL", pass.keys.index()).arg(node.to_string());
            pass.connection.run_one(index).await.map_err(ReapError::Redis)?;
            for bucket in 0..BUCKETS {
                self.registry.claims().forget((node, bucket));
            }
            if let Some(mut dead_node) = self.dead_nodes.remove(&node) {
                dead_node.is_announced = true;
                dead_node.end(&node, "this node has removed");
            }
        }
        Ok(())
    }

    /// Removes the entries of a dead node from the group index. Returns false if some are left for the next pass.
    async fn clear(&self, pass: &ReaperPass<'_>, node: NodeId) -> Result<bool, ReapError> {
        if !pass.connection.is_one_server() {
            return Ok(true);
        }
        for _ in 0..CLEARS_MAX {
            let clear = group_index::clear(pass.keys, node, BATCH);
            let answer: String = pass.connection.run_one(clear).await.and_then(read).map_err(ReapError::Redis)?;
            if answer != group_index::MORE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the command that writes the dead node into the index, so that other reapers find it.
    fn index_entry(pass: &ReaperPass<'_>, member: &ClusterMember) -> RedisCommand {
        RedisCommand::new("HSET", pass.keys.index())
            .arg(member.node.to_string())
            .arg(NodeIndexEntry::of(member).encode())
    }
}

impl ReaperPass<'_> {
    /// Sends one command and reads its answer.
    async fn ask<T: FromRedisValue>(&self, call: RedisCommand) -> Result<T, ReapError> {
        self.connection.run_one(call).await.and_then(read).map_err(ReapError::Redis)
    }
}

impl DeadNode {
    fn new(member: ClusterMember) -> Self {
        if member.record > u16::from(RECORD_FORMAT) {
            warn!(
                node = %member.node, format = member.record,
                "a dead node wrote records of a later format; nodes of its version take them over; if there is none, \
                 this node takes over those that it can read"
            );
        }
        let now = Instant::now();
        DeadNode {
            member,
            since: now,
            taken: 0,
            left: 0,
            is_announced: false,
            is_damaged: false,
            look_at: now,
            texts: None,
        }
    }

    fn announce(&mut self) {
        if !std::mem::replace(&mut self.is_announced, true) {
            info!(node = %self.member.node, connections = self.left, "taking over the connections of a dead node");
        }
    }

    fn end(&self, node: &NodeId, who: &str) {
        if self.is_announced {
            let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(%node, taken_over = self.taken, millis, "nothing is left of a dead node: {who} it");
        }
    }
}
