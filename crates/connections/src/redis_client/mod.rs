//! The client of Redis: the connection, the commands and scripts that it carries, and the names of all keys.
//!
//! [`RedisConnection`] carries pipelines to one server or to a Redis Cluster, each within one deadline.
//! [`AttachedRedis`] holds the one connection of this node while there is one. [`Keys`] names every key. A script
//! changes in one atomic step what belongs together; most scripts stand beside their callers, in files of the name
//! `scripts.rs`, and [`NodeAnswer`] is the answer of those that act for a registration. The user of a connection
//! decides what a failure means: this room never retries and never reconnects.
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
pub mod server_info;
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
