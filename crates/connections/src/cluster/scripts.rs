//! The scripts of the heartbeat: each is one atomic step in Redis, on the keys of one node.
//!
//! Scripts of different versions exist side by side, because Redis knows each by the hash of its text.

use std::time::Duration;

use crate::redis_client::{BUCKETS, Keys, NodeKey, OK, RedisCommand, RedisError, ScriptText, Value, read};
use tidegate_core::id::NodeId;

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

/// Registers this node. Its entry in the index is written before. Answers a [`NodeAnswer`](crate::redis_client::NodeAnswer).
pub fn register(keys: &Keys, node: NodeId, epoch: u64, lease: Duration) -> RedisCommand {
    of_lease(&REGISTER, keys, node, epoch, lease)
}

/// Renews the lease of a node. Answers a [`NodeAnswer`](crate::redis_client::NodeAnswer).
pub fn renew(keys: &Keys, node: NodeId, epoch: u64, lease: Duration) -> RedisCommand {
    of_lease(&RENEW, keys, node, epoch, lease)
}

fn of_lease(script: &'static ScriptText, keys: &Keys, node: NodeId, epoch: u64, lease: Duration) -> RedisCommand {
    RedisCommand::script(script, vec![keys.node(node), keys.lease(node)])
        .arg(epoch.to_string())
        .arg(lease.as_millis().to_string())
}

/// The state of another node at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLook {
    /// The node key; `None` if it is damaged.
    pub key: Option<NodeKey>,
    pub lease_alive: bool,
    /// Time on Redis's own clock, in ms.
    pub time_millis: u64,
}

impl NodeLook {
    /// Reads the answer of [`look`].
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer has another shape.
    pub fn read(answer: Value) -> Result<Self, RedisError> {
        let (key, lease, time_millis): (Vec<u8>, u8, u64) = read(answer)?;
        let key = NodeKey::parse(&String::from_utf8_lossy(&key));
        Ok(NodeLook { key, lease_alive: lease > 0, time_millis })
    }
}

/// Looks at another node. Answers a [`NodeLook`].
pub fn look(keys: &Keys, node: NodeId) -> RedisCommand {
    RedisCommand::script(&LOOK, vec![keys.node(node), keys.lease(node)])
}

/// The answer of [`leave`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaveAnswer {
    /// Nothing of the node remains but its entry in the index.
    Removed,
    /// The node was condemned, because it still has records or members, or the node key is another one. The text says
    /// which, for the log.
    Remains(String),
}

impl LeaveAnswer {
    /// Reads the answer of [`leave`].
    ///
    /// # Errors
    /// [`RedisError::Unexpected`]: the answer is not a text.
    pub fn read(answer: Value) -> Result<Self, RedisError> {
        let answer: String = read(answer)?;
        Ok(if answer == OK { LeaveAnswer::Removed } else { LeaveAnswer::Remains(answer) })
    }
}

/// Takes this node out of the cluster. Its entry in the index is removed afterwards. Answers a [`LeaveAnswer`].
pub fn leave(keys: &Keys, node: NodeId, epoch: u64) -> RedisCommand {
    let buckets = (0..BUCKETS).map(|bucket| keys.bucket(node, bucket));
    let others = [keys.topics(node), keys.strings(node)];
    let keys = [keys.node(node), keys.lease(node)].into_iter().chain(buckets).chain(others).collect();
    RedisCommand::script(&LEAVE, keys).arg(epoch.to_string())
}
