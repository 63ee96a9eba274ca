mod node;
#[path = "../../harness/redis.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod redis;

use std::time::Duration;

pub(crate) use node::{BROWSER, Node, NodeOptions, SOON, connection, outbox};
pub(crate) use redis::{RedisServer, free_port};

/// The lease in tests. A sixth of it is Redis's time to answer, which a busy machine must be able to keep.
pub(crate) const LEASE: Duration = Duration::from_millis(3000);

/// Waits until something is true, which it has to be soon.
#[track_caller]
pub(crate) fn eventually<F, Fut>(what: &'static str, mut check: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let caller = std::panic::Location::caller();
    async move {
        let limit = tokio::time::Instant::now() + Duration::from_secs(20);
        while !check().await {
            assert!(tokio::time::Instant::now() < limit, "{caller}: not in time: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
