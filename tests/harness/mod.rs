//! A cluster of real processes, for tests of what only these show: a backend that keeps a ledger, `tidegate serve` nodes,
//! a `redis-server`, proxies that cut and stall, and a crowd of clients that chats and comes back.
//!
//! A test target takes it in with `#[path = "../harness/mod.rs"] mod harness;` beside `../process/mod.rs` as `process`.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod authority;
mod crowd;
mod ledger;
mod nodes;
mod proxy;
mod redis;
mod signature;
mod visitor;

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

pub(crate) use authority::{Authority, Issued};
pub(crate) use crowd::{Crowd, Session};
pub(crate) use ledger::{Answer, Call, EventType, Ledger, Push};
pub(crate) use nodes::{Entrance, Entrances, Node, Nodes, Plan};
pub(crate) use proxy::{Mode, TestProxy};
pub(crate) use redis::{RedisServer, free_port};
pub(crate) use signature::signed;
pub(crate) use visitor::Visitor;

/// How long a test waits for what has to happen. Generous: it is only reached by a test that fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits until something is true, for what nothing announces.
#[track_caller]
pub(crate) fn eventually<F, Fut>(what: &str, mut check: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let caller = std::panic::Location::caller();
    async move {
        let limit = tokio::time::Instant::now() + LIMIT;
        while !check().await {
            assert!(tokio::time::Instant::now() < limit, "{caller}: not in time: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Runs a future beside the test. It ends with the test's runtime.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    TaskTracker::new().spawn(future)
}
