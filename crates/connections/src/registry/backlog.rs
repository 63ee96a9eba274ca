use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tracing::{error, warn};

/// The number of this node's ended connections whose `$disconnect` is not delivered yet, and its limit. While the limit
/// is reached, new clients are refused.
///
/// No event is dropped because of the limit: connections that are open when it is reached still end, and their events
/// wait too.
#[derive(Debug)]
pub struct Backlog {
    waiting: AtomicUsize,
    max: AtomicUsize,
    /// True if it was logged that the limit is reached, and not yet that there is room again.
    is_told: AtomicBool,
}

impl Backlog {
    pub(super) fn new(max: usize) -> Self {
        Backlog { waiting: AtomicUsize::new(0), max: AtomicUsize::new(max), is_told: AtomicBool::new(false) }
    }

    /// Returns the number of ended connections that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns the limit.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Returns true if new clients must be refused.
    pub fn is_full(&self) -> bool {
        self.waiting() >= self.max()
    }

    /// Returns the number of waiting connections divided by the limit.
    pub fn fill(&self) -> f64 {
        self.waiting() as f64 / self.max().max(1) as f64
    }

    /// Sets the limit to `max`.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.tell_if_full();
        self.tell_if_over();
    }

    /// Notes that a connection has ended.
    pub(super) fn add(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.tell_if_full();
    }

    /// Notes that the events of `count` connections are over, or are no longer sent by this node.
    pub(super) fn remove(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.tell_if_over();
    }

    fn tell_if_full(&self) {
        if self.is_full() && !self.is_told.swap(true, Ordering::Relaxed) {
            error!(
                waiting = self.waiting(),
                limit = self.max(),
                "the limit of ended connections that wait for their $disconnect is reached (limits.disconnectBacklog): \
                 new clients are refused with 503; check the backends of the $disconnect routes, or raise \
                 disconnect.concurrency"
            );
        }
    }

    /// Logs that there is room again, once a tenth of the limit is free, so that a backlog near its limit does not fill
    /// the log.
    fn tell_if_over(&self) {
        let max = self.max();
        if self.is_told.load(Ordering::Relaxed)
            && self.waiting() < max - max / 10
            && self.is_told.swap(false, Ordering::Relaxed)
        {
            warn!(
                waiting = self.waiting(),
                limit = max,
                "fewer ended connections wait for their $disconnect: new clients are accepted again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_told_once_when_it_is_full_and_once_when_a_tenth_is_free() {
        let backlog = Backlog::new(20);
        let is_told = || backlog.is_told.load(Ordering::Relaxed);
        (0..19).for_each(|_| backlog.add());
        assert!(!backlog.is_full() && !is_told());
        backlog.add();
        assert!(backlog.is_full() && is_told());
        backlog.add();
        assert_eq!((backlog.waiting(), backlog.fill()), (21, 1.05));
        backlog.remove(3);
        assert!(!backlog.is_full() && is_told(), "clients are accepted at once");
        backlog.remove(1);
        assert!(!is_told());
        backlog.set_max(10);
        assert!(backlog.is_full() && is_told());
        backlog.set_max(100);
        assert!(!backlog.is_full() && !is_told());
    }
}
