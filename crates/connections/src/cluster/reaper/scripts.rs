//! The scripts by which nodes take over the connections of a dead node. The keys of each script are all of that node.
//!
//! Each script deletes something, whether it exists or not, before it sets anything: once a script has written, Redis
//! lets it finish, even when its memory is used up.

use std::time::Duration;

use crate::redis_client::{BUCKETS, Keys, NodeKey, OK, RedisCommand, RedisError, ScriptText, Value, read};
use tidegate_core::id::NodeId;

/// Lifetime of a tombstone, once nothing is left of its node.
const TOMBSTONE: Duration = Duration::from_secs(3600);

/// Condemns a node. KEYS: node, lease. ARGV: the node key as it was seen, Redis's time in ms after which it is too
/// late. The key is compared, because what was seen may have been lost meanwhile, and the lease with it.
static CONDEMN: ScriptText = ScriptText::new(
    "if redis.call('EXISTS', KEYS[2]) == 1 then return 'ALIVE' end
        local t = redis.call('TIME')
        if t[1] * 1000 + math.floor(t[2] / 1000) > tonumber(ARGV[2]) then return 'LATE' end
        local v = redis.call('GET', KEYS[1]) or 'MISSING'
        if v ~= ARGV[1] or string.sub(v, 1, 4) == 'dead' then return 'CHANGED' end
        redis.call('DEL', KEYS[2])
        redis.call('SET', KEYS[1], 'dead ' .. (string.match(v, '^live (%d+)$') or '0'))
        return 'OK'",
);

/// Claims a bucket. KEYS: node, claim, bucket. ARGV: node that claims, lease in ms.
static CLAIM: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1]) or 'MISSING'
        if string.sub(v, 1, 4) ~= 'dead' then return { v, {} } end
        local r = redis.call('GET', KEYS[2])
        if r and r ~= ARGV[1] then return { 'TAKEN', {} } end
        redis.call('DEL', KEYS[2])
        redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
        return { 'MINE', redis.call('HKEYS', KEYS[3]) }",
);

/// Renews a claim. KEYS: node, claim. ARGV: node that claims, lease in ms. Answers the state of the claim, and the node
/// key.
static KEEP: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1]) or 'MISSING'
        if string.sub(v, 1, 4) ~= 'dead' then return { 'GONE', v } end
        local r = redis.call('GET', KEYS[2])
        if not r then return { 'GONE', v } end
        if r ~= ARGV[1] then return { 'TAKEN', v } end
        redis.call('PEXPIRE', KEYS[2], ARGV[2])
        return { 'OK', v }",
);

/// Writes records back. KEYS: node, lease, claim, bucket. ARGV: node that claims, lease in ms, then (id, record)…
static RESTORE: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        redis.call('DEL', KEYS[2])
        if not v or string.sub(v, 1, 4) ~= 'dead' then redis.call('SET', KEYS[1], 'dead 0') end
        redis.call('PERSIST', KEYS[1])
        for i = 3, #ARGV, 2 do redis.call('HSETNX', KEYS[4], ARGV[i], ARGV[i + 1]) end
        local r = redis.call('GET', KEYS[3])
        if r and r ~= ARGV[1] then return 'TAKEN' end
        redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
        return 'MINE'",
);

/// Notes outcomes. KEYS: claim, bucket. ARGV: node that claims, 1 to keep the claim of an empty bucket, number of ids
/// whose event is over, these ids, then (id, record)… of those that are tried again.
static FINISH: ScriptText = ScriptText::new(
    "local n = tonumber(ARGV[3])
        redis.call('HDEL', KEYS[2], '')
        for i = 4, 3 + n do redis.call('HDEL', KEYS[2], ARGV[i]) end
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'OK' end
        for i = 4 + n, #ARGV, 2 do
            if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then
                redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
            end
        end
        if ARGV[2] == '0' and redis.call('EXISTS', KEYS[2]) == 0 then
            redis.call('DEL', KEYS[1])
            return 'EMPTY'
        end
        return 'OK'",
);

/// Sets unreadable records aside. KEYS: claim, bucket, unreadable. ARGV: node that claims, then the names of records.
/// The field with the empty name holds the time at which the last record was added.
static SET_ASIDE: ScriptText = ScriptText::new(
    "redis.call('HDEL', KEYS[2], '')
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'LOST' end
        for i = 2, #ARGV do
            local record = redis.call('HGET', KEYS[2], ARGV[i])
            if record then
                redis.call('HSET', KEYS[3], ARGV[i], record)
                redis.call('HDEL', KEYS[2], ARGV[i])
            end
        end
        local t = redis.call('TIME')
        redis.call('HSET', KEYS[3], '', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)))
        return 'OK'",
);

/// Removes overdue unreadable records. KEYS: unreadable, strings, the buckets. ARGV: smallest age of the last record in
/// ms. Also removes the strings, unless records that refer to them are left.
static OVERDUE: ScriptText = ScriptText::new(
    "local at = redis.call('HGET', KEYS[1], '')
        if not at then return { 'NONE', {} } end
        local names = redis.call('HKEYS', KEYS[1])
        local t = redis.call('TIME')
        if t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(at) < tonumber(ARGV[1]) then
            return { 'KEPT', { at, tostring(#names - 1) } }
        end
        redis.call('DEL', KEYS[1])
        for i = 3, 18 do
            if redis.call('EXISTS', KEYS[i]) == 1 then return { 'LOST', names } end
        end
        redis.call('DEL', KEYS[2])
        return { 'LOST', names }",
);

/// Puts unreadable records back into their bucket. KEYS: node, lease, claim, bucket, unreadable. ARGV: node that
/// claims, lease in ms, then the names of records.
static REVIVE: ScriptText = ScriptText::new(
    "redis.call('DEL', KEYS[2])
        local v = redis.call('GET', KEYS[1])
        if not v or string.sub(v, 1, 4) ~= 'dead' then redis.call('SET', KEYS[1], 'dead 0') end
        redis.call('PERSIST', KEYS[1])
        for i = 3, #ARGV do
            local record = redis.call('HGET', KEYS[5], ARGV[i])
            if record then
                redis.call('HSETNX', KEYS[4], ARGV[i], record)
                redis.call('HDEL', KEYS[5], ARGV[i])
            end
        end
        if redis.call('HLEN', KEYS[5]) == 1 then redis.call('HDEL', KEYS[5], '') end
        local r = redis.call('GET', KEYS[3])
        if r and r ~= ARGV[1] then return 'TAKEN' end
        redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
        return 'MINE'",
);

/// Removes a dead node of which nothing is left. KEYS: node, the buckets, strings, the claims, topics, unreadable.
/// ARGV: node that removes it, lifetime of the tombstone in ms. Strings to which unreadable records may refer are kept.
static REMOVE: ScriptText = ScriptText::new(
    "local v = redis.call('GET', KEYS[1])
        if not v or string.sub(v, 1, 4) ~= 'dead' then return 'NO' end
        for i = 2, 17 do
            if redis.call('EXISTS', KEYS[i]) == 1 then return 'NO' end
        end
        for i = 19, 34 do
            local r = redis.call('GET', KEYS[i])
            if r and r ~= ARGV[1] then return 'NO' end
        end
        if redis.call('EXISTS', KEYS[35]) == 1 then return 'NO' end
        for i = 19, 34 do redis.call('DEL', KEYS[i]) end
        if redis.call('EXISTS', KEYS[36]) == 0 then redis.call('DEL', KEYS[18]) end
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        return 'OK'",
);

/// The answer of [`condemn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CondemnAnswer {
    Condemned,
    /// The node was not condemned. The text says why, for the log.
    Refused(String),
}

impl CondemnAnswer {
    /// Reads the answer of [`condemn`]. An answer of another shape counts as a refusal without a reason.
    pub fn read(answer: Value) -> Self {
        let answer: String = read(answer).unwrap_or_default();
        if answer == OK { CondemnAnswer::Condemned } else { CondemnAnswer::Refused(answer) }
    }
}

/// Condemns a node whose key was `seen` without a lease, unless it is later than `not_after`, in ms by Redis's clock.
/// Answers a [`CondemnAnswer`].
pub fn condemn(keys: &Keys, node: NodeId, seen: NodeKey, not_after: u64) -> RedisCommand {
    RedisCommand::script(&CONDEMN, vec![keys.node(node), keys.lease(node)])
        .arg(seen.to_text())
        .arg(not_after.to_string())
}

/// The answer of [`claim`] and [`restore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// The bucket belongs to the caller.
    Mine,
    /// Another node has the bucket.
    Taken,
    /// The node is not dead any more, or Redis has forgotten that it is. The text is the node key, for the log.
    NotDead(String),
}

impl ClaimAnswer {
    /// Reads the answer of [`restore`].
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer is not a text.
    pub fn read(answer: Value) -> Result<Self, RedisError> {
        Ok(ClaimAnswer::parse(read(answer)?))
    }

    /// Reads the answer of [`claim`], and the names of the records in the bucket.
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer has another shape.
    pub fn read_with_names(answer: Value) -> Result<(Self, Vec<Vec<u8>>), RedisError> {
        let (answer, names) = read(answer)?;
        Ok((ClaimAnswer::parse(answer), names))
    }

    fn parse(text: String) -> Self {
        match text.as_str() {
            "MINE" => ClaimAnswer::Mine,
            "TAKEN" => ClaimAnswer::Taken,
            _ => ClaimAnswer::NotDead(text),
        }
    }

    /// Returns the text of the answer.
    pub fn as_str(&self) -> &str {
        match self {
            ClaimAnswer::Mine => "MINE",
            ClaimAnswer::Taken => "TAKEN",
            ClaimAnswer::NotDead(text) => text,
        }
    }
}

/// Claims a bucket of a dead node for `lease`. Answers a [`ClaimAnswer`], and the names of the bucket's records.
pub fn claim(keys: &Keys, node: NodeId, bucket: usize, by: NodeId, lease: Duration) -> RedisCommand {
    let keys = vec![keys.node(node), keys.claim(node, bucket), keys.bucket(node, bucket)];
    of_claim(RedisCommand::script(&CLAIM, keys), by, lease)
}

/// The answer of [`keep`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAnswer {
    pub claim: KeptClaim,
    /// The text of the node key, for the log.
    pub found: String,
}

/// The state of a claim that was to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptClaim {
    /// The claim is renewed.
    Renewed,
    /// Another node has the bucket.
    Taken,
    /// No node has the bucket. `key` is the node key; `None` if it is damaged.
    Gone { key: Option<NodeKey> },
}

impl KeepAnswer {
    /// Reads the answer of [`keep`].
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer has another shape.
    pub fn read(answer: Value) -> Result<Self, RedisError> {
        let (answer, found): (String, String) = read(answer)?;
        let claim = match answer.as_str() {
            OK => KeptClaim::Renewed,
            "TAKEN" => KeptClaim::Taken,
            _ => KeptClaim::Gone { key: NodeKey::parse(&found) },
        };
        Ok(KeepAnswer { claim, found })
    }
}

/// Renews a claim. Answers a [`KeepAnswer`].
pub fn keep(keys: &Keys, node: NodeId, bucket: usize, by: NodeId, lease: Duration) -> RedisCommand {
    of_claim(RedisCommand::script(&KEEP, vec![keys.node(node), keys.claim(node, bucket)]), by, lease)
}

/// Writes back records of a dead node that Redis has lost, and claims their bucket. Answers a [`ClaimAnswer`].
pub fn restore(
    keys: &Keys,
    (node, bucket): (NodeId, usize),
    by: NodeId,
    lease: Duration,
    records: Vec<(String, Vec<u8>)>,
) -> RedisCommand {
    let keys = vec![keys.node(node), keys.lease(node), keys.claim(node, bucket), keys.bucket(node, bucket)];
    with_records(of_claim(RedisCommand::script(&RESTORE, keys), by, lease), records)
}

/// Notes the events that are `done`, and the records of those that are tried again. With `keeps` the claim stays even
/// if nothing is left in the bucket. The text of the answer is for the log: `EMPTY` if the claim was given back.
pub fn finish(
    keys: &Keys,
    (node, bucket): (NodeId, usize),
    by: NodeId,
    keeps: bool,
    done: &[String],
    failed: Vec<(String, Vec<u8>)>,
) -> RedisCommand {
    let call = RedisCommand::script(&FINISH, vec![keys.claim(node, bucket), keys.bucket(node, bucket)])
        .arg(by.to_string())
        .arg(if keeps { "1" } else { "0" })
        .arg(done.len().to_string());
    with_records(done.iter().fold(call, RedisCommand::arg), failed)
}

/// The answer of [`set_aside`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAsideAnswer {
    Done,
    /// The claim is not the caller's any more. The text is the answer, for the log.
    Lost(String),
}

impl SetAsideAnswer {
    /// Reads the answer of [`set_aside`].
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer is not a text.
    pub fn read(answer: Value) -> Result<Self, RedisError> {
        let answer: String = read(answer)?;
        Ok(if answer == OK { SetAsideAnswer::Done } else { SetAsideAnswer::Lost(answer) })
    }
}

/// Sets unreadable records of a claimed bucket aside. The node must have been added to the index of such records
/// before. Answers a [`SetAsideAnswer`].
pub fn set_aside(keys: &Keys, (node, bucket): (NodeId, usize), by: NodeId, names: &[Vec<u8>]) -> RedisCommand {
    let keys = vec![keys.claim(node, bucket), keys.bucket(node, bucket), keys.unreadable(node)];
    names.iter().fold(RedisCommand::script(&SET_ASIDE, keys).arg(by.to_string()), RedisCommand::arg)
}

/// The answer of [`overdue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverdueAnswer {
    /// There are no unreadable records.
    Nothing,
    /// The records are still kept.
    Kept {
        /// Time at which the last record was added, by Redis's clock.
        at: String,
        count: usize,
    },
    /// The records were removed; these are their names.
    Lost(Vec<Vec<u8>>),
}

impl OverdueAnswer {
    /// Reads the answer of [`overdue`].
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer has another shape.
    pub fn read(answer: Value) -> Result<Self, RedisError> {
        let (answer, mut words): (String, Vec<Vec<u8>>) = read(answer)?;
        Ok(match (&*answer, &*words) {
            ("KEPT", [at, count]) => {
                let [at, count] = [at, count].map(|word| String::from_utf8_lossy(word).into_owned());
                OverdueAnswer::Kept { at, count: count.parse().unwrap_or_default() }
            }
            ("LOST", _) => {
                // The field with the empty name is no record.
                words.retain(|name| !name.is_empty());
                OverdueAnswer::Lost(words)
            }
            _ => OverdueAnswer::Nothing,
        })
    }
}

/// Removes the unreadable records of a dead node if the last was added at least `age` ago. The node must be removed
/// from the index of such records afterwards. Answers an [`OverdueAnswer`].
pub fn overdue(keys: &Keys, node: NodeId, age: Duration) -> RedisCommand {
    let buckets = (0..BUCKETS).map(|bucket| keys.bucket(node, bucket));
    let all = [keys.unreadable(node), keys.strings(node)].into_iter().chain(buckets).collect();
    RedisCommand::script(&OVERDUE, all).arg(age.as_millis().to_string())
}

/// Puts records that can be read after all back into their bucket, and claims the bucket. The node must have been added
/// to the index before.
pub fn revive(
    keys: &Keys,
    (node, bucket): (NodeId, usize),
    by: NodeId,
    lease: Duration,
    names: &[Vec<u8>],
) -> RedisCommand {
    let keys = vec![
        keys.node(node),
        keys.lease(node),
        keys.claim(node, bucket),
        keys.bucket(node, bucket),
        keys.unreadable(node),
    ];
    names.iter().fold(of_claim(RedisCommand::script(&REVIVE, keys), by, lease), RedisCommand::arg)
}

/// Reads the answer of [`remove`]: true if the node was removed.
///
/// # Errors
/// [`RedisError::Unexpected`]: the answer is not a text.
pub fn is_removed(answer: Value) -> Result<bool, RedisError> {
    Ok(read::<String>(answer)? == OK)
}

/// Removes all keys of a dead node of which nothing is left, except its tombstone. Its entry in the index is removed
/// afterwards. [`is_removed`] reads the answer.
pub fn remove(keys: &Keys, node: NodeId, by: NodeId) -> RedisCommand {
    let claims = (0..BUCKETS).map(|bucket| keys.claim(node, bucket));
    let others = [keys.topics(node), keys.unreadable(node)];
    let all = [keys.node(node)].into_iter().chain(keys.records(node)).chain(claims).chain(others).collect();
    of_claim(RedisCommand::script(&REMOVE, all), by, TOMBSTONE)
}

fn of_claim(call: RedisCommand, by: NodeId, lease: Duration) -> RedisCommand {
    call.arg(by.to_string()).arg(lease.as_millis().to_string())
}

fn with_records(call: RedisCommand, records: Vec<(String, Vec<u8>)>) -> RedisCommand {
    records.into_iter().fold(call, |call, (id, record)| call.arg(id).arg(record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn list(items: &[&str]) -> Value {
        Value::Array(items.iter().map(|item| text(item)).collect())
    }

    #[test]
    fn the_answer_to_a_claim_is_read() {
        for (answer, expected) in [
            ("MINE", ClaimAnswer::Mine),
            ("TAKEN", ClaimAnswer::Taken),
            ("live 5", ClaimAnswer::NotDead("live 5".to_owned())),
            ("MISSING", ClaimAnswer::NotDead("MISSING".to_owned())),
        ] {
            assert_eq!(expected.as_str(), answer);
            assert_eq!(ClaimAnswer::read(text(answer)).unwrap(), expected);
            let with_names = Value::Array(vec![text(answer), list(&["a", "b"])]);
            let names = vec![b"a".to_vec(), b"b".to_vec()];
            assert_eq!(ClaimAnswer::read_with_names(with_names).unwrap(), (expected, names));
        }
        assert!(ClaimAnswer::read(Value::Int(1)).is_ok_and(|answer| answer == ClaimAnswer::NotDead("1".to_owned())));
        assert!(ClaimAnswer::read_with_names(text("MINE")).is_err());
    }

    #[test]
    fn the_answer_to_the_renewal_of_a_claim_is_read() {
        let check = |answer: &str, found: &str, claim: KeptClaim| {
            let expected = KeepAnswer { claim, found: found.to_owned() };
            assert_eq!(KeepAnswer::read(list(&[answer, found])).unwrap(), expected);
        };
        check("OK", "dead 5", KeptClaim::Renewed);
        check("TAKEN", "dead 5", KeptClaim::Taken);
        check("GONE", "MISSING", KeptClaim::Gone { key: Some(NodeKey::Missing) });
        check("GONE", "dead 5", KeptClaim::Gone { key: Some(NodeKey::Dead { epoch: 5 }) });
        check("GONE", "what", KeptClaim::Gone { key: None });
        check("what", "live 5", KeptClaim::Gone { key: Some(NodeKey::Live { epoch: 5 }) });
    }

    #[test]
    fn the_answer_about_unreadable_records_is_read() {
        let check = |answer: &str, words: &[&str], expected: OverdueAnswer| {
            let answer = Value::Array(vec![text(answer), list(words)]);
            assert_eq!(OverdueAnswer::read(answer).unwrap(), expected);
        };
        check("NONE", &[], OverdueAnswer::Nothing);
        check("KEPT", &["1700000000000", "3"], OverdueAnswer::Kept { at: "1700000000000".to_owned(), count: 3 });
        check("LOST", &["a", "", "b"], OverdueAnswer::Lost(vec![b"a".to_vec(), b"b".to_vec()]));
    }

    #[test]
    fn an_answer_that_only_says_yes_is_read() {
        assert_eq!(CondemnAnswer::read(text("OK")), CondemnAnswer::Condemned);
        assert_eq!(CondemnAnswer::read(text("LATE")), CondemnAnswer::Refused("LATE".to_owned()));
        assert_eq!(SetAsideAnswer::read(text("OK")).unwrap(), SetAsideAnswer::Done);
        assert_eq!(SetAsideAnswer::read(text("LOST")).unwrap(), SetAsideAnswer::Lost("LOST".to_owned()));
        assert!(is_removed(text("OK")).unwrap() && !is_removed(text("NO")).unwrap());
    }
}
