//! The scripts of living nodes: each is one atomic step in Redis. The keys of each are all of one node, or of one
//! quota.
//!
//! Scripts of different versions exist side by side, because Redis knows each by the hash of its text.

use std::time::Duration;

use super::connection::ScriptText;
use super::{BUCKETS, Keys, RedisCommand, RedisConnection};
use crate::clock::Timestamp;
use crate::id::NodeId;

/// Answer of a script if there is no node key.
pub const MISSING: &str = "MISSING";

/// Answer of a script that did what it was asked to.
pub const OK: &str = "OK";

/// Registers a node. KEYS: node, lease. ARGV: epoch, lease in ms. Answers the key that is there already, if there is
/// one.
static REGISTER: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        if v then return v end
        redis.call('SET', KEYS[1], 'live ' .. ARGV[1])
        redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
        return 'OK'",
);

/// Renews a lease. KEYS: node, lease. ARGV: epoch, lease in ms. `PEXPIRE` comes first: unlike `SET` it works while
/// Redis is out of memory.
static RENEW: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        if v ~= 'live ' .. ARGV[1] then return v or 'MISSING' end
        if redis.call('PEXPIRE', KEYS[2], ARGV[2]) == 0 then
            redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
        end
        return 'OK'",
);

/// Writes records. KEYS: node, the buckets, strings. ARGV: epoch, number of strings, (number, text)…, then (bucket from
/// 1, id, record or an empty text to delete)…
static WRITE: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        if v ~= 'live ' .. ARGV[1] then return v or 'MISSING' end
        local i = 3
        for _ = 1, tonumber(ARGV[2]) do
            redis.call('HSET', KEYS[18], ARGV[i], ARGV[i + 1])
            i = i + 2
        end
        while i < #ARGV do
            local bucket = KEYS[1 + tonumber(ARGV[i])]
            if ARGV[i + 2] == '' then
                redis.call('HDEL', bucket, ARGV[i + 1])
            else
                redis.call('HSET', bucket, ARGV[i + 1], ARGV[i + 2])
            end
            i = i + 3
        end
        return 'OK'",
);

/// Looks at a node. KEYS: node, lease. Answers the node key, whether the lease exists, and Redis's time in ms.
static LOOK: ScriptText = ScriptText::new(
    "local t = redis.call('TIME')
        return { redis.call('GET', KEYS[1]) or 'MISSING', redis.call('EXISTS', KEYS[2]),
            t[1] * 1000 + math.floor(t[2] / 1000) }",
);

/// Takes a node out of the cluster. KEYS: node, lease, the buckets, topics, strings. ARGV: epoch. If the node has
/// neither records nor members, nothing of it remains; otherwise it is condemned.
static LEAVE: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        if v ~= 'live ' .. ARGV[1] then return v or 'MISSING' end
        redis.call('DEL', KEYS[2])
        for i = 3, 19 do
            if redis.call('EXISTS', KEYS[i]) == 1 then
                redis.call('SET', KEYS[1], 'dead ' .. ARGV[1])
                return 'LEFT'
            end
        end
        redis.call('DEL', KEYS[1], KEYS[20])
        return 'OK'",
);

/// Reads `INFO`. KEYS: node, which only chooses the server. ARGV: a section of `INFO`.
static INFO: ScriptText = ScriptText::new("return redis.call('INFO', ARGV[1])");

/// A replacement for [`INFO`] if the user may not run that command. KEYS and ARGV are those of [`INFO`].
static NO_INFO: ScriptText = ScriptText::new("return ''");

/// Takes from a quota. KEYS: quota. ARGV: limit; number to add first, whatever the limit is; count to assume if Redis has
/// none; number to take; further number to take, unless fewer than the next argument would be left; that number; end of
/// the period in ms since 1970. Answers the number taken, and the count.
static TAKE: ScriptText = ScriptText::new(
    "local before = redis.call('GET', KEYS[1])
        local used = math.max(tonumber(before or ARGV[3]) + tonumber(ARGV[2]), 0)
        local free = tonumber(ARGV[1]) - used
        local take = tonumber(ARGV[4])
        local more = tonumber(ARGV[5])
        if free - take - more >= tonumber(ARGV[6]) then take = take + more end
        take = math.max(math.min(take, free), 0)
        local after = string.format('%.0f', used + take)
        if after ~= before then
            redis.call('SET', KEYS[1], after)
            redis.call('PEXPIREAT', KEYS[1], ARGV[7])
        end
        return { take, used + take }",
);

/// A request to the count of one quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRequest {
    pub limit: u64,
    /// Number that is added first, whatever the limit is.
    pub owed: i64,
    /// The count, as this node last saw it. If Redis has lost the count, it goes on from here, not from 0.
    pub known: u64,
    /// Number to take, as far as the limit allows.
    pub take: u64,
    /// Number to take beside `take`, if at least `left` remain afterwards.
    pub more: u64,
    pub left: u64,
}

/// Takes from a quota. The answer is the number taken, then the count.
pub fn take(key: String, request: &QuotaRequest, expires_at: Timestamp) -> RedisCommand {
    let QuotaRequest { limit, owed, known, take, more, left } = request;
    let numbers = [owed.to_string(), known.to_string(), take.to_string(), more.to_string(), left.to_string()];
    let call = RedisCommand::script(&TAKE, vec![key]).arg(limit.to_string());
    numbers.iter().fold(call, |call, number| call.arg(number)).arg(expires_at.millis().to_string())
}

/// Registers this node. Its entry in the index is written before.
pub fn register(keys: &Keys, node: NodeId, epoch: u64, lease: Duration) -> RedisCommand {
    of_lease(&REGISTER, keys, node, epoch, lease)
}

/// Renews the lease of a node.
pub fn renew(keys: &Keys, node: NodeId, epoch: u64, lease: Duration) -> RedisCommand {
    of_lease(&RENEW, keys, node, epoch, lease)
}

fn of_lease(script: &'static ScriptText, keys: &Keys, node: NodeId, epoch: u64, lease: Duration) -> RedisCommand {
    RedisCommand::script(script, vec![keys.node(node), keys.lease(node)])
        .arg(epoch.to_string())
        .arg(lease.as_millis().to_string())
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    pub bucket: usize,
    pub id: String,
    /// The record to put; `None` deletes it.
    pub record: Option<Vec<u8>>,
}

/// Changes records of this node, and first writes the `strings` that they refer to.
pub fn write(
    keys: &Keys,
    node: NodeId,
    epoch: u64,
    strings: &[(u32, String)],
    changes: Vec<RecordChange>,
) -> RedisCommand {
    let mut call = RedisCommand::script(&WRITE, [keys.node(node)].into_iter().chain(keys.records(node)).collect())
        .arg(epoch.to_string())
        .arg(strings.len().to_string());
    for (number, text) in strings {
        call = call.arg(number.to_string()).arg(text.as_bytes());
    }
    for RecordChange { bucket, id, record } in changes {
        call = call.arg((bucket + 1).to_string()).arg(id).arg(record.unwrap_or_default());
    }
    call
}

/// Looks at another node.
pub fn look(keys: &Keys, node: NodeId) -> RedisCommand {
    RedisCommand::script(&LOOK, vec![keys.node(node), keys.lease(node)])
}

/// Takes this node out of the cluster. Its entry in the index is removed afterwards.
pub fn leave(keys: &Keys, node: NodeId, epoch: u64) -> RedisCommand {
    let buckets = (0..BUCKETS).map(|bucket| keys.bucket(node, bucket));
    let others = [keys.topics(node), keys.strings(node)];
    let keys = [keys.node(node), keys.lease(node)].into_iter().chain(buckets).chain(others).collect();
    RedisCommand::script(&LEAVE, keys).arg(epoch.to_string())
}

/// Reads a section of `INFO` of the server that holds this node's keys. The answer is empty if the user of `connection`
/// may not run that command.
pub fn info(connection: &RedisConnection, keys: &Keys, node: NodeId, section: &str) -> RedisCommand {
    let script = if connection.hides_info() { &NO_INFO } else { &INFO };
    RedisCommand::script(script, vec![keys.node(node)]).arg(section)
}
