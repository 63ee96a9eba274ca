use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::register::Register;
use tidegate_core::lock::lock;

/// Shortest time between two log lines about refused links with the same reason. The bound is needed because anyone can
/// connect to a port.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Metrics of the links to other nodes. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct LinkMetrics {
    open: Gauge<i64, AtomicI64>,
    refused: Family<RefusalLabels, Counter>,
    ended: Family<EndLabels, Counter>,
    asked: Counter,
    logged: Arc<Mutex<HashMap<&'static str, Instant>>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndLabels {
    end: &'static str,
}

impl LinkMetrics {
    pub(super) fn declare(register: &mut Register<'_>) -> Self {
        LinkMetrics {
            open: register.single("links_open", "Links to other nodes that are up"),
            refused: register.counter("link_refusals", "Connections to the peer port that got no link"),
            ended: register.counter("link_ends", "Links that ended, by cause"),
            asked: register.single_counter("link_asks", "Requests of other nodes about groups and users of this node"),
            logged: Arc::default(),
        }
    }

    /// Counts a link that is up.
    pub fn opened(&self) {
        self.open.inc();
    }

    /// Subtracts a link that is no longer up.
    pub fn closed(&self) {
        self.open.dec();
    }

    /// Counts a link that ended, by its cause.
    pub fn ended(&self, end: &'static str) {
        self.ended.get_or_create(&EndLabels { end }).inc();
    }

    /// Counts a request of another node about groups or users.
    pub fn asked(&self) {
        self.asked.inc();
    }

    /// Counts a connection to the peer port that got no link. Returns true if it is time to log one.
    pub fn refused(&self, reason: &'static str) -> bool {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
        let now = Instant::now();
        let mut logged = lock(&self.logged);
        let is_due = logged.get(reason).is_none_or(|at| now.duration_since(*at) >= REFUSAL_LOG_INTERVAL);
        if is_due {
            logged.insert(reason, now);
        }
        is_due
    }

    /// Returns the number of connections to the peer port that got no link, for this reason.
    pub fn refusals(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&RefusalLabels { reason }).get()
    }
}
