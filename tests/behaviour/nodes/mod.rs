//! Several nodes as real processes on one real Redis: they are one gateway, whatever Redis, links and restarts do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod balancer;
mod group_index;
mod groups;
mod ledger;
mod links;
mod push;
mod redis;
mod restarts;
mod rights;
