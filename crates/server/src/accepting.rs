//! The state of a listener that cannot accept connections, and the log lines about it: when it begins, each minute
//! while it lasts, and when it is over.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use tidegate_telemetry::AcceptGauge;

/// Shortest time between two warnings.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Time without a failure after which the state is over.
const CALM_TIME: Duration = Duration::from_secs(5);

/// The reason why a listener cannot accept connections.
#[derive(Debug)]
pub(super) enum Shortage<'a> {
    /// Clients use all the files that they may use together.
    ClientFiles { max: usize },
    /// The process has no file descriptor left, or the kernel failed.
    Failed(&'a io::Error),
}

/// The state of one listener, and the time of its last warning.
#[derive(Debug)]
pub(super) struct Accepting {
    listener: &'static str,
    gauge: AcceptGauge,
    paused: Option<Paused>,
    said: Option<Instant>,
}

#[derive(Debug)]
struct Paused {
    began: Instant,
    last: Instant,
    count: u64,
    is_said: bool,
}

impl Accepting {
    pub(super) fn new(listener: &'static str, gauge: AcceptGauge) -> Self {
        gauge.set(listener, false);
        Accepting { listener, gauge, paused: None, said: None }
    }

    /// Notes that no connection can be accepted now, because of `why`. Logs a warning if the last one is a minute old.
    pub(super) fn cannot(&mut self, why: &Shortage<'_>) {
        let (listener, now) = (self.listener, Instant::now());
        let paused = self.paused.get_or_insert_with(|| {
            self.gauge.set(listener, true);
            Paused { began: now, last: now, count: 0, is_said: false }
        });
        (paused.last, paused.count) = (now, paused.count + 1);
        if self.said.is_some_and(|said| now < said + REPEAT_INTERVAL) {
            return;
        }
        self.said = Some(now);
        paused.is_said = true;
        let (count, seconds) = (paused.count, (now - paused.began).as_secs());
        match why {
            Shortage::ClientFiles { max } => warn!(
                listener,
                max,
                count,
                seconds,
                "new connections have to wait: clients use all the files that they may use; raise the limit of open files"
            ),
            Shortage::Failed(error) => warn!(
                listener,
                %error,
                count,
                seconds,
                "could not accept a connection; retrying; raise the limit of open files if it is reached"
            ),
        }
    }

    /// Returns the time of the next warning.
    pub(super) fn repeat_at(&self) -> Instant {
        self.said.unwrap_or_else(Instant::now) + REPEAT_INTERVAL
    }

    /// Notes that a connection could be accepted after a wait.
    pub(super) fn can(&mut self) {
        if let Some(paused) = &mut self.paused {
            paused.last = Instant::now();
        }
    }

    /// Waits until [`CALM_TIME`] has passed since the last failure; for ever if there was none.
    pub(super) async fn calm(&self) {
        match &self.paused {
            Some(paused) => sleep_until(paused.last + CALM_TIME).await,
            None => pending().await,
        }
    }

    /// Ends the state. Logs that the listener accepts connections again, if a warning was logged.
    pub(super) fn is_over(&mut self) {
        let Some(Paused { began, last, count, is_said }) = self.paused.take() else { return };
        self.gauge.set(self.listener, false);
        if is_said {
            let seconds = (last - began).as_secs();
            info!(listener = self.listener, count, seconds, "the listener accepts connections again");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use tidegate_telemetry::Metrics;

    const WHY: Shortage<'static> = Shortage::ClientFiles { max: 1 };

    #[tokio::test(start_paused = true)]
    async fn a_state_is_said_at_most_each_minute_and_the_metric_shows_it_at_once() {
        let metrics = Metrics::new("memory");
        let mut accepting = Accepting::new("public", metrics.accept_gauge());
        let shown = || metrics.encode().contains("tidegate_accept_paused{listener=\"public\"} 1");
        let mut said = Vec::new();
        for _ in 0..3 {
            assert!(!shown());
            for _ in 0..100 {
                accepting.cannot(&WHY);
                said.extend(accepting.said);
                advance(Duration::from_millis(50)).await;
            }
            assert!(shown());
            accepting.can();
            accepting.calm().await;
            accepting.is_over();
        }
        said.dedup();
        assert_eq!(said.len(), 1, "three states within a minute are one warning");
        advance(REPEAT_INTERVAL).await;
        accepting.cannot(&WHY);
        assert_ne!(accepting.said, said.pop());
        assert_eq!(accepting.paused.as_ref().map(|paused| (paused.count, paused.is_said)), Some((1, true)));
    }
}
