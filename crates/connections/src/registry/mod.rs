//! This node's own map of its connections: the truth about which exist, which are open, and which have ended and wait
//! for their `$disconnect` to be delivered.
//!
//! An entry is *connecting* until its `$connect` is answered, *open* while it is served, and *ended* until its
//! `$disconnect` has been delivered; then it is removed. Every change goes through a method of [`Registry`], in one
//! place and under the lock of one shard, never across an await. If there is a Redis replica ([`RedisReplica`]), it
//! follows each change there. Nothing reads the replica while this node is alive: Redis may be down or lose data, and
//! the writer reconciles it afterwards.

mod backlog;
pub mod claims;
mod entry;
mod fencing;
mod listing;
mod map;
pub mod record;
mod redis_replica;
pub mod scripts;
mod serving_gate;
mod settings;
mod state;
mod walk;
pub mod writer;

pub use backlog::Backlog;
pub use claims::Claims;
pub use entry::{EndedConnection, OpenConnection};
pub use fencing::watch_gate;
pub use listing::{ConnectionView, Page, Query};
pub use map::{NotRecorded, Registry};
pub use redis_replica::{RedisReplica, ReplicaSettings};
pub use serving_gate::ServingGate;
pub use settings::{RegistrySettings, RegistryType, WhenUnavailable};
pub use state::RegistryState;
