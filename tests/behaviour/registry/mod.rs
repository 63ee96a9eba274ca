//! The registry as it is built: one contract suite that runs with memory and with the replica, and what happens to the
//! replica when Redis is slow, away, full, read-only or forgetful. Each test starts its own `redis-server`.

pub(crate) mod support;

mod cluster;
mod contract;
mod fenced;
mod gateway;
mod memory_per_record;
mod membership;
mod operators;
mod outage;
mod reaper;
mod reaping;
mod records;
mod tls;
