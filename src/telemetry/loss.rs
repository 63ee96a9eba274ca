use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tracing::{info, warn};

/// After a loss, how long all must go well before another one is said again.
const QUIET_TIME: Duration = Duration::from_secs(60);

/// Says once that telemetry itself loses something, however much it loses; how much is counted.
#[derive(Debug)]
pub(super) struct Loss {
    /// What is lost: lines, spans.
    what: &'static str,
    /// Where it was to go.
    destination: String,
    last: Mutex<Option<Instant>>,
}

impl Loss {
    pub(super) fn new(what: &'static str, destination: &str) -> Self {
        Loss { what, destination: destination.to_owned(), last: Mutex::new(None) }
    }

    /// `count` were lost.
    pub(super) fn lost(&self, counter: &Counter, count: usize, why: &dyn std::fmt::Display) {
        counter.inc_by(count as u64);
        let before = self.lock().replace(Instant::now());
        if before.is_none() {
            let (what, destination) = (self.what, &self.destination);
            warn!(what, destination, error = %why, "telemetry is lost; more losses are counted and not said");
        }
    }

    /// Something arrived.
    pub(super) fn arrived(&self) {
        let mut last = self.lock();
        if last.is_some_and(|last| last.elapsed() > QUIET_TIME) {
            *last = None;
            info!(what = self.what, destination = self.destination, "telemetry arrives again");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
