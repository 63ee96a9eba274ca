//! The counts of lost log lines, which the log and the metrics share.

use std::sync::atomic::{AtomicU64, Ordering};

/// The name of log lines without a budget, of which any number may be written: `info!(name: UNBUDGETED, …)`. Lines that
/// an unauthorized client can cause never have it.
pub const UNBUDGETED: &str = "unbudgeted";

/// Log lines of this process that were not written, by cause. They are counted for the process, as is its log.
pub(super) static LOST: LostLines =
    LostLines { full: AtomicU64::new(0), failed: AtomicU64::new(0), budget: AtomicU64::new(0) };

/// Counts of log lines that were not written.
#[derive(Debug)]
pub(super) struct LostLines {
    /// Lines for which the queue was full, because the log is read too slowly.
    pub(super) full: AtomicU64,
    /// Lines that could not be written.
    pub(super) failed: AtomicU64,
    /// Lines for which the budget of their kind was used up.
    pub(super) budget: AtomicU64,
}

impl LostLines {
    /// Returns each cause, by its name in metrics, with its count.
    pub(super) fn by_cause(&self) -> [(&'static str, u64); 3] {
        [("full", &self.full), ("failed", &self.failed), ("budget", &self.budget)]
            .map(|(cause, count)| (cause, count.load(Ordering::Relaxed)))
    }
}
