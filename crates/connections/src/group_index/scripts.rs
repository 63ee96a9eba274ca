//! The scripts of the group index. They touch keys of several slots, so they are for a single server, where each sees
//! and changes everything at one moment; they are never sent to a Redis Cluster.
//!
//! The entries of a node count for as long as its freshness lease in [`Keys::freshness_leases`] lasts:
//! `<generation> <ms>`, by Redis's clock. Writes of an older generation, which come late on a connection that was given
//! up, change nothing.

use crate::redis_client::{Keys, OK, RedisCommand, RedisError, ScriptText, Value, read};
use tidegate_core::id::NodeId;
use tidegate_core::topic::Topic;

/// Gives or renews a freshness lease. KEYS: node, freshness leases. ARGV: epoch, node id, generation, end in ms (0:
/// none yet). Answers Redis's time in ms.
static RENEW_FRESHNESS: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        if v ~= 'live ' .. ARGV[1] then return { v or 'MISSING', 0 } end
        local r = redis.call('HGET', KEYS[2], ARGV[2])
        local before = r and tonumber(string.match(r, '^(%d+)'))
        local mine = tonumber(ARGV[3])
        if before and before > mine or ARGV[4] ~= '0' and before ~= mine then return { 'STALE', 0 } end
        redis.call('HSET', KEYS[2], ARGV[2], ARGV[3] .. ' ' .. ARGV[4])
        local t = redis.call('TIME')
        return { 'OK', t[1] * 1000 + math.floor(t[2] / 1000) }",
);

/// Writes entries. KEYS: node, topics, freshness leases, then groups and users. ARGV: epoch, node id, generation, then
/// the number of members of each. Entries are removed first, because that needs no memory.
static WRITE: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        if v ~= 'live ' .. ARGV[1] then return v or 'MISSING' end
        local r = redis.call('HGET', KEYS[3], ARGV[2])
        if not r or string.match(r, '^(%d+)') ~= ARGV[3] then return 'STALE' end
        for i = 4, #KEYS do
            if ARGV[i] == '0' then
                redis.call('HDEL', KEYS[i], ARGV[2])
                redis.call('SREM', KEYS[2], KEYS[i])
            end
        end
        for i = 4, #KEYS do
            if ARGV[i] ~= '0' then
                redis.call('HSET', KEYS[i], ARGV[2], ARGV[i])
                redis.call('SADD', KEYS[2], KEYS[i])
            end
        end
        return 'OK'",
);

/// Finds nodes. KEYS: freshness leases, then groups and users. Answers the nodes whose freshness lease lasts, then for
/// each group or user the nodes that have members.
static FIND: ScriptText = ScriptText::new(
    "local t = redis.call('TIME')
        local now = t[1] * 1000 + math.floor(t[2] / 1000)
        local words, sure = redis.call('HGETALL', KEYS[1]), {}
        for i = 1, #words, 2 do
            local till = string.match(words[i + 1], ' (%d+)$')
            if till and tonumber(till) > now then sure[#sure + 1] = words[i] end
        end
        local found = { sure }
        for i = 2, #KEYS do found[i] = redis.call('HKEYS', KEYS[i]) end
        return found",
);

/// Removes entries of a dead node. KEYS: node, topics, freshness leases. ARGV: node id, most entries to remove at once.
static CLEAR: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        if not v or string.sub(v, 1, 4) ~= 'dead' then return 'NO' end
        redis.call('HDEL', KEYS[3], ARGV[1])
        local keys = redis.call('SPOP', KEYS[2], ARGV[2])
        for i = 1, #keys do redis.call('HDEL', keys[i], ARGV[1]) end
        return redis.call('EXISTS', KEYS[2]) == 1 and 'MORE' or 'OK'",
);

/// The writer of entries: a node, its epoch, and the number of times that it began anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexWriter {
    pub node: NodeId,
    pub epoch: u64,
    pub generation: u64,
}

/// The nodes that may have members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexLookup {
    /// Nodes whose entries are complete, because their freshness lease lasts.
    pub complete: Vec<String>,
    /// Nodes with members, by their entries, for each group or user that was asked for.
    pub holders: Vec<Vec<String>>,
}

/// The answer of [`write`] and [`renew_freshness`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexAnswer {
    Done,
    /// The node key is another one, or the generation an older one. The text says which, for the log.
    Refused(String),
}

impl IndexAnswer {
    /// Reads the answer of [`write`].
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer is not a text.
    pub fn read(answer: Value) -> Result<Self, RedisError> {
        Ok(IndexAnswer::parse(read(answer)?))
    }

    /// Reads the answer of [`renew_freshness`], and Redis's time in ms, which counts only if the lease was renewed.
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer has another shape.
    pub fn read_with_time(answer: Value) -> Result<(Self, u64), RedisError> {
        let (answer, millis) = read(answer)?;
        Ok((IndexAnswer::parse(answer), millis))
    }

    fn parse(text: String) -> Self {
        if text == OK { IndexAnswer::Done } else { IndexAnswer::Refused(text) }
    }
}

/// Declares that all entries of this node are complete until `until`, in ms by Redis's clock. With 0 it begins a
/// generation, whose writes count from then on. Answers an [`IndexAnswer`], and Redis's time.
pub fn renew_freshness(keys: &Keys, by: &IndexWriter, until: u64) -> RedisCommand {
    let call = RedisCommand::script(&RENEW_FRESHNESS, vec![keys.node(by.node), keys.freshness_leases()]);
    signed(call, by).arg(until.to_string())
}

/// Writes the number of members that this node has of each group or user; 0 removes the entry. Answers an
/// [`IndexAnswer`].
pub fn write(keys: &Keys, by: &IndexWriter, counts: &[(String, usize)]) -> RedisCommand {
    let own = [keys.node(by.node), keys.topics(by.node), keys.freshness_leases()];
    let all = own.into_iter().chain(counts.iter().map(|(key, _)| key.clone())).collect();
    counts.iter().fold(signed(RedisCommand::script(&WRITE, all), by), |call, (_, count)| call.arg(count.to_string()))
}

/// Finds the nodes that may have members of `topics`.
pub fn find(keys: &Keys, topics: impl Iterator<Item = Topic>) -> RedisCommand {
    let topics = topics.map(|topic| keys.topic(&topic));
    RedisCommand::script(&FIND, [keys.freshness_leases()].into_iter().chain(topics).collect())
}

/// Reads the answer of [`find`].
///
/// # Errors
/// [`RedisError::Unexpected`]: the answer has another shape.
pub fn found(answer: Value) -> Result<IndexLookup, RedisError> {
    let mut lists: Vec<Vec<String>> = read(answer)?;
    if lists.is_empty() {
        return Err(RedisError::Unexpected);
    }
    let complete = lists.remove(0);
    Ok(IndexLookup { complete, holders: lists })
}

/// Reads the answer of [`clear`]: true while something is left.
///
/// # Errors
/// [`RedisError::Unexpected`]: the answer is not a text.
pub fn has_more(answer: Value) -> Result<bool, RedisError> {
    Ok(read::<String>(answer)? == "MORE")
}

/// Removes up to `count` entries of a dead node, and its freshness lease. [`has_more`] reads the answer.
pub fn clear(keys: &Keys, node: NodeId, count: usize) -> RedisCommand {
    RedisCommand::script(&CLEAR, vec![keys.node(node), keys.topics(node), keys.freshness_leases()])
        .arg(node.to_string())
        .arg(count.to_string())
}

fn signed(call: RedisCommand, by: &IndexWriter) -> RedisCommand {
    call.arg(by.epoch.to_string()).arg(by.node.to_string()).arg(by.generation.to_string())
}
