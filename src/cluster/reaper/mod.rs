//! The reaper: claims the records that dead nodes left, a bucket at a time, and gives them back when their events are
//! over. The events themselves are sent by whoever takes [`crate::registry::Claims::events`].

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
use crate::id::NodeId;
use crate::redis_client::{
    BUCKETS, FromRedisValue, Keys, RedisCommand, RedisConnection, RedisError, group_index, read, reaping, scripts,
};
use crate::registry::record::{RECORD_FORMAT, RecordTexts};
use crate::registry::{RedisReplica, Registry};
use crate::telemetry::{ReapingMetrics, RepeatedWarning, chain};
use unreadable::Aside;

/// Most records of dead nodes that one node holds, and no more than may wait of its own ([`crate::registry::Backlog`]). A
/// larger bucket is read bit by bit.
const HELD_MAX: usize = 16_384;

/// Most records of one call that reads them, notes what became of them, or writes them back.
const BATCH: usize = 256;

/// Most calls of one pass that take away in which groups a dead node had members, [`BATCH`] at a time.
const CLEARS_MAX: usize = 64;

/// What the reaper needs.
#[derive(Debug)]
pub struct ReaperSettings {
    pub times: Times,
    /// How long records that cannot be read are kept, and how often they are looked at; for tests shorter.
    pub unreadable_kept: Duration,
    pub unreadable_look: Duration,
}

impl ReaperSettings {
    /// Those of a cluster with these times.
    pub fn new(times: Times) -> Self {
        let (unreadable_kept, unreadable_look) = (unreadable::KEPT_FOR, unreadable::LOOK_INTERVAL);
        ReaperSettings { times, unreadable_kept, unreadable_look }
    }
}

/// Takes over what dead nodes left. [`Reaper::run`] is its one task.
#[derive(Debug)]
pub struct Reaper {
    settings: ReaperSettings,
    registry: Arc<Registry>,
    replica: Arc<RedisReplica>,
    membership: Arc<Membership>,
    metrics: ReapingMetrics,
    dead_nodes: BTreeMap<NodeId, DeadNode>,
    /// What was set aside, by the dead node that it is of.
    asides: HashMap<NodeId, Aside>,
    /// When that is looked at next.
    unreadable_at: Instant,
    /// When claims are renewed next.
    keep_at: Instant,
    /// What dead nodes left cannot be taken over.
    warning: RepeatedWarning,
}

/// A dead node of which something may be left.
#[derive(Debug)]
struct DeadNode {
    member: ClusterMember,
    since: Instant,
    /// Records that this node has taken over.
    taken: usize,
    /// Records that are left in Redis, at the last look.
    left: usize,
    /// It was said that this node takes part.
    is_announced: bool,
    /// It was said that Redis does not do what it is asked for this node.
    is_damaged: bool,
    /// When to look again.
    look_at: Instant,
    texts: Option<RecordTexts>,
}

#[derive(Debug, Error)]
enum ReapError {
    #[error("a Redis command failed")]
    Redis(#[source] RedisError),
}

/// Where one pass works.
struct ReaperPass<'a> {
    connection: &'a RedisConnection,
    keys: &'a Keys,
    /// In whose name: a node that was fenced claims under its new id.
    node: NodeId,
}

impl Reaper {
    /// One that has nothing yet. `registry` has the replica `replica`.
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

    /// Reaps until `stop`. A pass follows each heartbeat, each event that is over, and each pass that left something to
    /// read.
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

    /// One pass: renews claims, notes what is over, reads and claims what there is room for, and removes who has
    /// nothing left. `true` if there is more to read at once.
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
                // Keys that are not what they should be keep nobody else's from being looked at.
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
            warn!(%node, %error, "Redis does not do what is asked of a dead node's keys; trying again at each beat");
        }
    }

    /// Most records that this node holds now.
    fn held_max(&self) -> usize {
        HELD_MAX.min(self.registry.backlog().max()).max(1)
    }

    /// Whether a living node writes records of the format that this dead one wrote: then it reads all of them, and they are
    /// left to it.
    fn has_better_reader(&self, dead: &ClusterMember) -> bool {
        let table = self.membership.table();
        let is_better = |member: &ClusterMember| member.lease_alive && member.record >= dead.record;
        dead.record > u16::from(RECORD_FORMAT) && table.members.values().any(is_better)
    }

    /// Learns who is dead, and who is removed.
    fn update_dead_nodes(&mut self) {
        let table = self.membership.table();
        for member in &table.dead {
            self.dead_nodes.entry(member.node).or_insert_with(|| DeadNode::new(member.clone()));
        }
        let held = self.registry.claims().views();
        self.dead_nodes.retain(|node, dead_node| {
            let is_dead = table.dead.iter().any(|member| member.node == *node);
            let is_held = held.iter().any(|view| view.bucket.0 == *node);
            // While Redis cannot be asked, nothing is known to be gone.
            let stays = is_dead || is_held || table.attached_since.is_none();
            if !stays {
                dead_node.end(node, "others have buried");
            }
            stays
        });
    }

    /// Looks what is left of a dead node, claims free buckets while there is room, and removes it if nothing is left.
    /// `true` if there is more to read at once.
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
        // One that this node has given up without an end, such as one that another has written back into, is its own still.
        let is_free = |bucket: usize| match &claimed[bucket] {
            Some(by) => *by == pass.node.to_string() && !held.contains(&bucket),
            None => true,
        };
        let mut is_behind = false;
        // Everybody begins at another bucket, so that they do not all ask for the same.
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
            // Redis has lost what is held here; it is written back when the claims are renewed.
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
                dead_node.end(&node, "this node has buried");
            }
        }
        Ok(())
    }

    /// Takes away in which groups a dead node had members. `false` if something is left for the next pass.
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

    /// The index names a dead node: whoever else reaps can find it.
    fn index_entry(pass: &ReaperPass<'_>, member: &ClusterMember) -> RedisCommand {
        RedisCommand::new("HSET", pass.keys.index())
            .arg(member.node.to_string())
            .arg(NodeIndexEntry::of(member).encode())
    }
}

impl ReaperPass<'_> {
    /// Asks Redis for one thing.
    async fn ask<T: FromRedisValue>(&self, call: RedisCommand) -> Result<T, ReapError> {
        self.connection.run_one(call).await.and_then(read).map_err(ReapError::Redis)
    }
}

impl DeadNode {
    fn new(member: ClusterMember) -> Self {
        if member.record > u16::from(RECORD_FORMAT) {
            warn!(
                node = %member.node, format = member.record,
                "a dead node wrote records of a later format; nodes of its version take them over, and without any this \
                 node takes what it can read"
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
