//! The client of Redis: the connection, the names of all keys, and the scripts of living nodes.
//!
//! [`RedisConnection`] carries pipelines to one server or to a Redis Cluster, each within one deadline.
//! [`AttachedRedis`] holds the one connection of this node while there is one. [`Keys`] names every key. [`scripts`]
//! holds the scripts of a living node and of quotas; the reaper and the group index have their own. A script changes in
//! one atomic step what belongs together. The user of a connection decides what a failure means: this room never
//! retries and never reconnects.
//!
//! Invariants: a script touches the keys of one node alone, or of one quota, so one slot of a Redis Cluster; those of
//! the group index are never sent to a cluster. No URL and no password is printed.

mod attached_redis;
mod connection;
mod error;
mod keys;
mod node_key;
mod reach;
pub mod scripts;
mod settings;

pub use attached_redis::{AttachedRedis, Attachment};
pub(crate) use connection::ScriptText;
pub use connection::{FromRedisValue, Redis, RedisCommand, RedisConnection, Transport, Value, read};
pub use error::{Cause, RedisError};
pub use keys::{BUCKETS, Keys};
pub(crate) use node_key::OK;
pub use node_key::{NodeAnswer, NodeKey};
pub use reach::Reach;
pub use settings::{Password, RedisSettings, RedisUrl, RedisUrls};
