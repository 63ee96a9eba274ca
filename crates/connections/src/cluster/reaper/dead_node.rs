//! The dead nodes of which records may be left, from the heartbeat that finds them to their removal from Redis.

use tokio::time::Instant;
use tracing::{info, warn};

use super::{BATCH, ReapError, Reaper, ReaperPass, scripts};
use crate::cluster::ClusterMember;
use crate::cluster::decide::may_claim;
use crate::cluster::node_index::NodeIndexEntry;
use crate::group_index::scripts as group_index_scripts;
use crate::redis_client::{BUCKETS, RedisCommand, RedisError, read, server_info};
use crate::registry::record::{RECORD_FORMAT, RecordTexts};
use tidegate_core::id::NodeId;

/// Largest number of calls in one pass that remove a dead node's entries from the group index. Each removes up to
/// [`BATCH`].
const CLEARS_MAX: usize = 64;

/// A dead node of which records may be left.
#[derive(Debug)]
pub(super) struct DeadNode {
    pub(super) member: ClusterMember,
    since: Instant,
    /// Number of records that this node has taken over.
    pub(super) taken: usize,
    /// Number of records that were left in Redis at the last check.
    pub(super) left: usize,
    /// True if it was logged that this node takes over connections of the dead one.
    is_announced: bool,
    /// True if it was logged that a command on the dead node's keys failed.
    pub(super) is_damaged: bool,
    /// Time of the next check.
    pub(super) look_at: Instant,
    pub(super) texts: Option<RecordTexts>,
}

impl Reaper {
    /// Returns true if a living node can read more records of `dead` than this node can, because it writes the same
    /// format or a later one. The records are left to that node.
    fn has_better_reader(&self, dead: &ClusterMember) -> bool {
        let table = self.membership.table();
        let is_better = |member: &ClusterMember| member.lease_alive && member.record >= dead.record;
        dead.record > u16::from(RECORD_FORMAT) && table.members.values().any(is_better)
    }

    /// Adds nodes that have died and drops those that were removed.
    pub(super) fn update_dead_nodes(&mut self) {
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
    pub(super) async fn look(&mut self, pass: &ReaperPass<'_>, node: NodeId) -> Result<bool, ReapError> {
        let Some(dead_node) = self.dead_nodes.get_mut(&node) else { return Ok(false) };
        dead_node.look_at = Instant::now() + self.settings.times.heartbeat();
        let member = dead_node.member.clone();
        if self.has_better_reader(&member) {
            return Ok(false);
        }
        let counts = (0..BUCKETS).map(|bucket| RedisCommand::new("HLEN", pass.keys.bucket(node, bucket)));
        let claims = (0..BUCKETS).map(|bucket| RedisCommand::new("GET", pass.keys.claim(node, bucket)));
        let info = server_info::ask(pass.connection, pass.keys, node, "server");
        let calls: Vec<RedisCommand> = counts.chain(claims).chain([info]).collect();
        let answers = pass.connection.run(&calls).await.map_err(ReapError::Redis)?;
        let (counted, claimed) = (answers.iter().take(BUCKETS), answers.iter().skip(BUCKETS).take(BUCKETS));
        let counts: Vec<usize> =
            counted.map(|answer| read(answer.clone())).collect::<Result<_, _>>().map_err(ReapError::Redis)?;
        let claimed: Vec<Option<String>> =
            claimed.map(|answer| read(answer.clone())).collect::<Result<_, _>>().map_err(ReapError::Redis)?;
        let info = answers.into_iter().next_back().ok_or(RedisError::Unexpected).and_then(read::<String>);
        let run_id = server_info::run_id_of(&info.map_err(ReapError::Redis)?);
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
        let remove = scripts::remove(pass.keys, node, pass.node);
        if pass.ask_for(remove, scripts::is_removed).await? {
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
            let clear = group_index_scripts::clear(pass.keys, node, BATCH);
            if !pass.ask_for(clear, group_index_scripts::has_more).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the command that writes the dead node into the index, so that other reapers find it.
    pub(super) fn index_entry(pass: &ReaperPass<'_>, member: &ClusterMember) -> RedisCommand {
        RedisCommand::new("HSET", pass.keys.index())
            .arg(member.node.to_string())
            .arg(NodeIndexEntry::of(member).encode())
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

    pub(super) fn announce(&mut self) {
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
