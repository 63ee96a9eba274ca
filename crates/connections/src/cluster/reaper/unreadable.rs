//! Records of dead nodes that this version cannot read: damaged ones, and those of a later format. They are set aside
//! for a day, so that a newer version may read them, and do not hold up the other records. After that day their events
//! are lost.
//!
//! They have a key of their own beside the keys of their node. The node can be removed without them, and a separate
//! index names the nodes that have such records.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::bucket::read_texts;
use super::scripts::{self, OverdueAnswer, SetAsideAnswer};
use super::{BATCH, ReapError, Reaper, ReaperPass};
use crate::cluster::node_index::NodeIndexEntry;
use crate::redis_client::{Keys, RedisCommand};
use crate::registry::claims::Bucket;
use crate::registry::record;
use tidegate_core::id::{ConnectionId, NodeId};

/// Time for which unreadable records are kept.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Time between two checks of the unreadable records by one node.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Largest number of names in one line of the log.
const NAMES_PER_LINE: usize = 20;

/// The unreadable records of one dead node, as far as this node knows them.
#[derive(Debug, Default)]
pub(super) struct Aside {
    count: usize,
    /// Time at which the last record was set aside, by Redis's clock, when this node last tried to read the records.
    tried: Option<String>,
}

impl Reaper {
    /// Sets records of a claimed bucket aside. `why` is the error of one of them.
    pub(super) async fn set_aside(
        &mut self,
        pass: &ReaperPass<'_>,
        bucket: Bucket,
        names: &[Vec<u8>],
        why: &str,
    ) -> Result<(), ReapError> {
        let node = bucket.0;
        let Some(dead_node) = self.dead_nodes.get(&node) else { return Ok(()) };
        let entry = NodeIndexEntry::of(&dead_node.member).encode();
        let index = || RedisCommand::new("HSET", pass.keys.unreadable_index()).arg(node.to_string()).arg(&entry);
        let mut count = 0;
        for names in names.chunks(BATCH) {
            // The entry is written before the records: a node that dies in between leaves an entry without records. It
            // is written again afterwards, because another node may have removed such an entry meanwhile.
            pass.ask::<u64>(index()).await?;
            let set_aside = scripts::set_aside(pass.keys, bucket, pass.node, names);
            let answer = pass.ask_for(set_aside, SetAsideAnswer::read).await?;
            pass.ask::<u64>(index()).await?;
            if let SetAsideAnswer::Lost(answer) = answer {
                debug!(%node, bucket = bucket.1, answer, "left unreadable records to the node that has the bucket");
                break;
            }
            count += names.len();
        }
        if count > 0 {
            error!(
                %node, bucket = bucket.1, count, connection_ids = in_words(names), error = why,
                "records of a dead node cannot be read; their $disconnect events wait a day for a node of a newer \
                 version, then they are lost"
            );
            self.asides.entry(node).or_default().count += count;
            self.count_unreadable();
        }
        Ok(())
    }

    /// Checks all records that were set aside: puts back those that this version can read, and gives up those that are
    /// older than a day.
    pub(super) async fn tend_unreadable(&mut self, pass: &ReaperPass<'_>) -> Result<(), ReapError> {
        if Instant::now() < self.unreadable_at {
            return Ok(());
        }
        // The time is random, so that nodes that started together do not all check at once.
        self.unreadable_at = Instant::now() + self.settings.unreadable_look.mul_f64(0.75 + 0.5 * rand::random::<f64>());
        let index = RedisCommand::new("HGETALL", pass.keys.unreadable_index());
        let entries: Vec<(Vec<u8>, Vec<u8>)> = pass.ask(index).await?;
        let mut before = std::mem::take(&mut self.asides);
        for (name, entry) in entries {
            let node = std::str::from_utf8(&name).ok().and_then(|name| NodeId::parse(name).ok());
            let Some(node) = node else {
                warn!(node = %String::from_utf8_lossy(&name), "removed an entry from Redis that has no valid node id");
                pass.ask::<u64>(RedisCommand::new("HDEL", pass.keys.unreadable_index()).arg(name)).await?;
                continue;
            };
            let aside = before.remove(&node).unwrap_or_default();
            if let Some(aside) = self.tend(pass, node, &entry, aside).await? {
                self.asides.insert(node, aside);
            }
        }
        self.count_unreadable();
        Ok(())
    }

    async fn tend(
        &self,
        pass: &ReaperPass<'_>,
        node: NodeId,
        entry: &[u8],
        mut aside: Aside,
    ) -> Result<Option<Aside>, ReapError> {
        let overdue = scripts::overdue(pass.keys, node, self.settings.unreadable_kept);
        match pass.ask_for(overdue, OverdueAnswer::read).await? {
            OverdueAnswer::Kept { at, count } => {
                aside.count = count;
                if aside.tried.as_deref() != Some(&at) {
                    let revived = self.revive(pass, node, entry).await?;
                    aside.count = aside.count.saturating_sub(revived);
                    aside.tried = Some(at);
                }
                Ok(Some(aside))
            }
            OverdueAnswer::Lost(names) => {
                error!(
                    %node, count = names.len(), connection_ids = in_words(&names),
                    "the $disconnect events of these connections of a dead node are lost: no node could read their \
                     records within a day"
                );
                self.metrics.lost_unreadable(names.len());
                self.remove_entry(pass, node, entry).await?;
                Ok(None)
            }
            OverdueAnswer::Nothing => {
                self.remove_entry(pass, node, entry).await?;
                Ok(None)
            }
        }
    }

    /// Removes a node that has no unreadable records any more from the index.
    async fn remove_entry(&self, pass: &ReaperPass<'_>, node: NodeId, entry: &[u8]) -> Result<(), ReapError> {
        let index = |name| RedisCommand::new(name, pass.keys.unreadable_index()).arg(node.to_string());
        pass.ask::<u64>(index("HDEL")).await?;
        // Another node may have set further records aside meanwhile.
        if pass.ask::<bool>(RedisCommand::new("EXISTS", pass.keys.unreadable(node))).await? {
            pass.ask::<u64>(index("HSET").arg(entry)).await?;
        }
        Ok(())
    }

    /// Puts back the records that this version can read, so that they are taken over like all records of a dead node.
    /// Returns their number.
    async fn revive(&self, pass: &ReaperPass<'_>, node: NodeId, entry: &[u8]) -> Result<usize, ReapError> {
        let key = pass.keys.unreadable(node);
        let names: Vec<Vec<u8>> = pass.ask(RedisCommand::new("HKEYS", key.clone())).await?;
        let texts = read_texts(pass, node).await?;
        let text = |number: u32| Some(texts.get(&number).cloned().unwrap_or_default());
        let mut readable: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
        for names in names.chunks(BATCH) {
            let records = names.iter().fold(RedisCommand::new("HMGET", key.clone()), RedisCommand::arg);
            let records: Vec<Option<Vec<u8>>> = pass.ask(records).await?;
            for (name, record) in names.iter().zip(records) {
                if let (Some(id), Some(record)) = (id_of(name), record)
                    && record::decode(id, &record, self.registry.client_header_bytes(), text).is_ok()
                {
                    readable.entry(Keys::bucket_of(&id)).or_default().push(name.clone());
                }
            }
        }
        let count = readable.values().map(Vec::len).sum();
        if count == 0 {
            return Ok(0);
        }
        // The node is in the index before it has records again.
        pass.ask::<u64>(RedisCommand::new("HSET", pass.keys.index()).arg(node.to_string()).arg(entry)).await?;
        for (bucket, names) in readable {
            for names in names.chunks(BATCH) {
                let lease = self.settings.times.lease();
                pass.ask::<String>(scripts::revive(pass.keys, (node, bucket), pass.node, lease, names)).await?;
            }
        }
        info!(%node, count, "this version can read records of a dead node that were set aside; taking them over");
        Ok(count)
    }

    fn count_unreadable(&self) {
        self.metrics.set_unreadable(self.asides.values().map(|aside| aside.count).sum());
    }
}

/// Returns the connection id that is the name of a record, or `None` if the name is not a connection id.
pub(super) fn id_of(name: &[u8]) -> Option<ConnectionId> {
    std::str::from_utf8(name).ok().and_then(|name| ConnectionId::parse(name).ok())
}

/// Returns some of the `names` as text for a log line.
fn in_words(names: &[Vec<u8>]) -> String {
    let names = names.iter().take(NAMES_PER_LINE).map(|name| String::from_utf8_lossy(name));
    names.collect::<Vec<_>>().join(" ")
}
