//! What happened: operations, latencies, errors. Shared by all tasks of a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(120);

/// Nanoseconds since the run began.
pub(crate) type Nanos = u64;

/// Operations count when they end in the window; latencies when they were due in it, measured from when they were
/// due, not from when they could be sent: a target that stalls is charged for all that it held up (coordinated
/// omission).
pub(crate) struct Recorder {
    base: Instant,
    begins: AtomicU64,
    ends: AtomicU64,
    done: AtomicU64,
    bytes: AtomicU64,
    latencies: Mutex<Latencies>,
    errors: Mutex<BTreeMap<String, u64>>,
    notes: Mutex<BTreeMap<String, u64>>,
}

struct Latencies {
    all: Histogram<u64>,
    replies: Histogram<u64>,
    posts: Histogram<u64>,
    since_last_look: Histogram<u64>,
}

/// What an operation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A handshake, to its 101.
    Connect,
    /// A message, to its reply.
    Reply,
    /// A post, to its client.
    Post,
    /// An HTTP call, to its answer.
    Call,
}

/// Latencies as reports say them, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Recorder {
    /// Nothing counts until [`Recorder::begin`].
    pub(crate) fn new() -> Self {
        let max = LATENCY_MAX.as_nanos() as u64;
        let histogram = || Histogram::new_with_bounds(1000, max, 3).expect("the bounds are valid");
        Recorder {
            base: Instant::now(),
            begins: AtomicU64::new(Nanos::MAX),
            ends: AtomicU64::new(Nanos::MAX),
            done: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latencies: Mutex::new(Latencies {
                all: histogram(),
                replies: histogram(),
                posts: histogram(),
                since_last_look: histogram(),
            }),
            errors: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Nanos {
        self.base.elapsed().as_nanos() as u64
    }

    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        self.base + Duration::from_nanos(at)
    }

    /// The window begins.
    pub(crate) fn begin(&self) {
        self.begins.store(self.now(), Ordering::Relaxed);
    }

    /// The window ends.
    pub(crate) fn end(&self) {
        self.ends.store(self.now(), Ordering::Relaxed);
    }

    /// An operation that was due at `due` has ended well.
    pub(crate) fn done(&self, operation: Operation, due: Nanos, bytes: usize) {
        let now = self.now();
        let (begins, ends) = (self.begins.load(Ordering::Relaxed), self.ends.load(Ordering::Relaxed));
        if (begins..=ends).contains(&now) {
            self.done.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        if (begins..=ends).contains(&due) {
            let mut latencies = lock(&self.latencies);
            let latency = now.saturating_sub(due);
            latencies.all.saturating_record(latency);
            latencies.since_last_look.saturating_record(latency);
            match operation {
                Operation::Connect | Operation::Call => {}
                Operation::Reply => latencies.replies.saturating_record(latency),
                Operation::Post => latencies.posts.saturating_record(latency),
            }
        }
    }

    /// Something was wrong. Errors count whenever they happen.
    pub(crate) fn error(&self, what: impl Into<String>) {
        *lock(&self.errors).entry(what.into()).or_default() += 1;
    }

    /// Something worth a line in the report that is no error.
    pub(crate) fn note(&self, what: impl Into<String>) {
        *lock(&self.notes).entry(what.into()).or_default() += 1;
    }

    /// Takes over the errors and notes of a recorder for a part of the run.
    pub(crate) fn take_in(&self, part: &Recorder) {
        for (what, count) in part.errors() {
            *lock(&self.errors).entry(what).or_default() += count;
        }
        for (what, count) in part.notes() {
            *lock(&self.notes).entry(what).or_default() += count;
        }
    }

    pub(crate) fn operations(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }

    pub(crate) fn notes(&self) -> BTreeMap<String, u64> {
        lock(&self.notes).clone()
    }

    pub(crate) fn latencies(&self) -> Quantiles {
        quantiles(&lock(&self.latencies).all)
    }

    /// Latencies since this was last asked, for a part of a run.
    pub(crate) fn take_latencies(&self) -> Quantiles {
        let mut latencies = lock(&self.latencies);
        let taken = quantiles(&latencies.all);
        latencies.all.reset();
        taken
    }

    /// Latencies of messages, and of posts.
    pub(crate) fn latencies_apart(&self) -> (Quantiles, Quantiles) {
        let latencies = lock(&self.latencies);
        (quantiles(&latencies.replies), quantiles(&latencies.posts))
    }

    /// Latencies since this was last asked.
    pub(crate) fn recent_latencies(&self) -> Quantiles {
        let mut latencies = lock(&self.latencies);
        let recent = quantiles(&latencies.since_last_look);
        latencies.since_last_look.reset();
        recent
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    if histogram.is_empty() {
        return Quantiles::default();
    }
    Quantiles { count: histogram.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_due_in_the_window_has_a_latency() {
        let recorder = Recorder::new();
        recorder.done(Operation::Reply, recorder.now(), 10);
        assert_eq!((recorder.operations(), recorder.latencies().count), (0, 0));
        let before = recorder.now();
        recorder.begin();
        recorder.done(Operation::Reply, before, 10);
        assert_eq!((recorder.operations(), recorder.latencies().count), (1, 0), "it ended in the window");
        recorder.done(Operation::Reply, recorder.now(), 10);
        assert_eq!((recorder.operations(), recorder.bytes(), recorder.latencies().count), (2, 20, 1));
        let due = recorder.now();
        recorder.end();
        std::thread::sleep(Duration::from_millis(1));
        recorder.done(Operation::Reply, due, 10);
        assert_eq!((recorder.operations(), recorder.latencies().count), (2, 2), "late, and charged for it");
        assert!(recorder.latencies().max >= 1000.0);
    }
}
