//! The script of the writer: one atomic step in Redis, on the keys of one node.

use crate::redis_client::{Keys, RedisCommand, ScriptText};
use tidegate_core::id::NodeId;

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

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    pub bucket: usize,
    pub id: String,
    /// The record to put; `None` deletes it.
    pub record: Option<Vec<u8>>,
}

/// Changes records of this node, and first writes the `strings` that they refer to. Answers a
/// [`NodeAnswer`](crate::redis_client::NodeAnswer).
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
