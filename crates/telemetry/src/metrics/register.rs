use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Buckets of durations in seconds: 100 µs to 30 s.
const DURATION_BUCKETS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];

pub(super) type Gauges<L> = Family<L, Gauge<i64, AtomicI64>>;
pub(super) type Counters<L> = Family<L, Counter>;
pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// A register in which each metric is declared once, with its name and its help text. It remembers the names, so that
/// dashboards and alerts can be checked against them.
pub(super) struct Register<'a> {
    pub(super) registry: &'a mut Registry,
    pub(super) names: &'a mut Vec<String>,
}

impl Register<'_> {
    /// Declares a counter. Its full name ends in `_total`.
    pub(super) fn counter<L>(&mut self, name: &'static str, help: &'static str) -> Counters<L>
    where
        L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
    {
        let family = Counters::default();
        self.add(name, "_total", help, family.clone());
        family
    }

    pub(super) fn gauge<L>(&mut self, name: &'static str, help: &'static str) -> Gauges<L>
    where
        L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
    {
        let family = Gauges::default();
        self.add(name, "", help, family.clone());
        family
    }

    /// Declares a gauge of the process as a whole.
    pub(super) fn single<M: Metric + Clone + Default>(&mut self, name: &'static str, help: &'static str) -> M {
        let metric = M::default();
        self.add(name, "", help, metric.clone());
        metric
    }

    /// Declares a counter of the process as a whole.
    pub(super) fn single_counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        self.add(name, "_total", help, counter.clone());
        counter
    }

    /// Declares a histogram of durations.
    pub(super) fn durations<L>(&mut self, name: &'static str, help: &'static str) -> Histograms<L>
    where
        L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
    {
        let family: Histograms<L> = Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        for suffix in ["_bucket", "_sum"] {
            self.names.push(format!("tidegate_{name}{suffix}"));
        }
        self.add(name, "_count", help, family.clone());
        family
    }

    fn add(&mut self, name: &'static str, suffix: &str, help: &'static str, metric: impl Metric) {
        self.names.push(format!("tidegate_{name}{suffix}"));
        // The registry adds a full stop.
        self.registry.register(name, help, metric);
    }
}
