//! The script that counts the uses of quotas: one atomic step in Redis, on the key of one quota.

use super::{RedisCommand, ScriptText};
use tidegate_core::clock::Timestamp;

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
