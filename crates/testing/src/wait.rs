use std::panic::Location;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

/// Longest time that a test waits for something that has to happen. A test that passes never waits so long.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Time between two looks at a condition that nothing announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Awaits `future` for at most [`LIMIT`].
#[track_caller]
pub fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        match timeout(LIMIT, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: not within {LIMIT:?}: {what}"),
        }
    }
}

/// Waits for at most [`LIMIT`] until `condition` holds. For conditions that nothing announces.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let end = Instant::now() + LIMIT;
        while !condition().await {
            assert!(Instant::now() < end, "{caller}: not within {LIMIT:?}: {what}");
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Lets `window` pass, where time itself is what is tested: something must not happen meanwhile, or has to last so long. The
/// window has a name, or stands in the name of the test.
pub async fn pass(window: Duration) {
    sleep(window).await;
}

/// Runs a future beside the test. It ends with the runtime of the test.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    TaskTracker::new().spawn(future)
}
