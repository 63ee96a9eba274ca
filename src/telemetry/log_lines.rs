//! Facts about the process's log that its writers and the metrics share.

use std::sync::atomic::{AtomicU64, Ordering};

/// The name of log lines that may be written however many there are: `info!(name: UNBUDGETED, …)`. Lines that a stranger
/// can cause never have it.
pub const UNBUDGETED: &str = "unbudgeted";

/// Log lines of this process that were not written, by cause. The log is one for the process, so these are too.
pub(super) static LOST: LostLines =
    LostLines { full: AtomicU64::new(0), failed: AtomicU64::new(0), budget: AtomicU64::new(0) };

/// Counts of log lines that were not written.
#[derive(Debug)]
pub(super) struct LostLines {
    /// The queue was full: the log is read too slowly.
    pub(super) full: AtomicU64,
    /// Writing failed.
    pub(super) failed: AtomicU64,
    /// The budget of their kind was used up.
    pub(super) budget: AtomicU64,
}

impl LostLines {
    /// Each cause with its count, by the causes' names in metrics.
    pub(super) fn by_cause(&self) -> [(&'static str, u64); 3] {
        [("full", &self.full), ("failed", &self.failed), ("budget", &self.budget)]
            .map(|(cause, count)| (cause, count.load(Ordering::Relaxed)))
    }
}
