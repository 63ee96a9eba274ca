use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::{info, warn};

use super::RepeatedWarning;

/// How long all must go well after a loss until the loss is over.
const QUIET_TIME: Duration = Duration::from_secs(60);

/// Says that telemetry itself loses something: once for each cause, then once a minute, however much is lost. Every loss
/// is counted.
#[derive(Debug)]
pub(super) struct Loss {
    /// What is lost: lines, spans.
    what: &'static str,
    /// Where it was to go.
    destination: String,
    warning: RepeatedWarning,
}

impl Loss {
    pub(super) fn new(what: &'static str, destination: &str) -> Self {
        Loss { what, destination: destination.to_owned(), warning: RepeatedWarning::default() }
    }

    /// `count` were lost.
    pub(super) fn lost(&self, counter: &Counter, count: usize, why: &str) {
        counter.inc_by(count as u64);
        if self.warning.due(why).is_some() {
            let (what, destination) = (self.what, &self.destination);
            warn!(
                what,
                destination,
                error = why,
                "telemetry is lost; more losses are counted and not said for a minute"
            );
        }
    }

    /// Something arrived.
    pub(super) fn arrived(&self) {
        if self.warning.over_after(QUIET_TIME) {
            info!(what = self.what, destination = self.destination, "telemetry arrives again");
        }
    }
}
