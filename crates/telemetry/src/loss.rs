use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::{info, warn};

use super::RepeatedWarning;

/// Time without losses after which a loss is over.
const QUIET_TIME: Duration = Duration::from_secs(60);

/// The warning that telemetry itself loses lines or spans. It is logged once for each cause, then once a minute,
/// however much is lost. Every loss is counted.
#[derive(Debug)]
pub(super) struct Loss {
    /// The kind of loss, such as lines or spans.
    what: &'static str,
    /// The destination that was not reached.
    destination: String,
    warning: RepeatedWarning,
}

impl Loss {
    pub(super) fn new(what: &'static str, destination: &str) -> Self {
        Loss { what, destination: destination.to_owned(), warning: RepeatedWarning::default() }
    }

    /// Counts `count` losses, and logs the warning if it is due.
    pub(super) fn lost(&self, counter: &Counter, count: usize, why: &str) {
        counter.inc_by(count as u64);
        if self.warning.due(why).is_some() {
            let (what, destination) = (self.what, &self.destination);
            warn!(
                what,
                destination,
                error = why,
                "telemetry was lost; further losses are counted, and logged at most once a minute"
            );
        }
    }

    /// Notes a successful delivery. Logs the end of a loss once there was none for [`QUIET_TIME`].
    pub(super) fn arrived(&self) {
        if self.warning.over_after(QUIET_TIME) {
            info!(what = self.what, destination = self.destination, "telemetry is delivered again");
        }
    }
}
