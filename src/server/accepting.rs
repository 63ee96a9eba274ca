//! The state of a listener that cannot accept for want of files: when it begins, lasts and is over.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::telemetry::AcceptGauge;

/// Least time between two warnings.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// How long all must go well until the state is over.
const CALM_TIME: Duration = Duration::from_secs(5);

/// Why a listener cannot accept.
#[derive(Debug)]
pub(super) enum Shortage<'a> {
    /// Clients have all the files that they may have together.
    ClientFiles { max: usize },
    /// The process has none left, or the kernel failed.
    Failed(&'a io::Error),
}

/// Says that a listener cannot accept: when that begins, each minute while it lasts, and when it is over.
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

    /// A connection cannot be accepted now.
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
                "new connections wait: clients have all files that they may have; raise the limit of open files"
            ),
            Shortage::Failed(error) => warn!(
                listener,
                %error,
                count,
                seconds,
                "could not accept a connection; tries again; raise the limit of open files if it is reached"
            ),
        }
    }

    /// When to say again that it cannot.
    pub(super) fn repeat_at(&self) -> Instant {
        self.said.unwrap_or_else(Instant::now) + REPEAT_INTERVAL
    }

    /// It can go on for now.
    pub(super) fn can(&mut self) {
        if let Some(paused) = &mut self.paused {
            paused.last = Instant::now();
        }
    }

    /// Waits until all has gone well for a while; for ever if nothing is to be said.
    pub(super) async fn calm(&self) {
        match &self.paused {
            Some(paused) => sleep_until(paused.last + CALM_TIME).await,
            None => pending().await,
        }
    }

    /// All has gone well for a while.
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
    use crate::telemetry::Metrics;

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
