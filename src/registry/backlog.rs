use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tracing::{error, warn};

/// The ended connections of this node whose `$disconnect` waits for its backend: how many there are, and how many there
/// may be while new clients are taken.
///
/// No event is dropped for it: those who are connected when it is reached still end, and their events wait too.
#[derive(Debug)]
pub struct Backlog {
    waiting: AtomicUsize,
    max: AtomicUsize,
    /// The operator was told that it is full, and not yet that there is room.
    is_told: AtomicBool,
}

impl Backlog {
    pub(super) fn new(max: usize) -> Self {
        Backlog { waiting: AtomicUsize::new(0), max: AtomicUsize::new(max), is_told: AtomicBool::new(false) }
    }

    /// Ended connections that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// As many may wait while new clients are taken.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Whether new clients are to be refused.
    pub fn is_full(&self) -> bool {
        self.waiting() >= self.max()
    }

    /// Waiting connections in proportion to what may be.
    pub fn fill(&self) -> f64 {
        self.waiting() as f64 / self.max().max(1) as f64
    }

    /// From now on as many may wait.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.tell_if_full();
        self.tell_if_over();
    }

    /// A connection has ended.
    pub(super) fn add(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.tell_if_full();
    }

    /// Events of so many are over, or no longer for this node to send.
    pub(super) fn remove(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.tell_if_over();
    }

    fn tell_if_full(&self) {
        if self.is_full() && !self.is_told.swap(true, Ordering::Relaxed) {
            error!(
                waiting = self.waiting(),
                limit = self.max(),
                "as many ended connections wait for their $disconnect as limits.disconnectBacklog allows: new clients are \
                 refused with 503; look at the backends of the $disconnect routes, or raise disconnect.concurrency"
            );
        }
    }

    /// A tenth has to be free again, so that a backlog at its limit fills no log.
    fn tell_if_over(&self) {
        let max = self.max();
        if self.is_told.load(Ordering::Relaxed)
            && self.waiting() < max - max / 10
            && self.is_told.swap(false, Ordering::Relaxed)
        {
            warn!(
                waiting = self.waiting(),
                limit = max,
                "fewer ended connections wait for their $disconnect again: new clients are taken"
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
        assert!(!backlog.is_full() && is_told(), "clients are taken at once");
        backlog.remove(1);
        assert!(!is_told());
        backlog.set_max(10);
        assert!(backlog.is_full() && is_told());
        backlog.set_max(100);
        assert!(!backlog.is_full() && !is_told());
    }
}
