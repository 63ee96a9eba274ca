use std::time::Duration;

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
