//! Failures of nodes, Redis and the network between them, as backends and clients see them: real processes on a real
//! Redis, with a backend that keeps a ledger as the judge.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backend;
mod clients;
mod cuts;
mod deaths;
mod pauses;
mod redis;
