//! The heartbeat: this node's periodic exchange with Redis. It registers the node, renews its lease, looks at the other
//! nodes, attaches the Redis replica ([`RedisReplica`]) and fills the table of members. Nothing else connects to Redis
//! or reconnects.

mod attempt;
mod condemn;
mod handle;
mod registration;
mod task;

pub use handle::{HeartbeatHandle, HeartbeatSettings};
pub use task::Heartbeat;
