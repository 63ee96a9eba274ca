//! The budget of log lines. Lines of one kind come from one place in the code. Of each kind, [`LINES_PER_SECOND`] lines
//! are written in a second; the others are counted, and a report gives their number.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::TARGET;
use super::queue::Queue;
use crate::log_lines::{LOST, UNBUDGETED};

/// Most lines of one kind that are written in a second.
const LINES_PER_SECOND: u64 = 50;

/// Longest message with which a report names a kind, in bytes.
const MESSAGE_MAX_BYTES: usize = 200;

/// The budget of each kind of line, and the number of lines that were left out. There are as many kinds as there are
/// places in the code that log.
#[derive(Debug)]
pub(super) struct Budget {
    queue: Arc<Queue>,
    started: Instant,
    kinds: DashMap<Identifier, Arc<Kind>>,
    /// Lost lines that reports have included so far, by cause.
    reported_full: AtomicU64,
    reported_failed: AtomicU64,
}

/// The subscriber layer that applies a [`Budget`].
pub(super) struct BudgetLayer(pub(super) Arc<Budget>);

#[derive(Debug)]
struct Kind {
    level: Level,
    target: &'static str,
    /// The message of the first line that was left out. For most kinds it is always the same.
    message: OnceLock<String>,
    /// The second of the last line, and the number of lines in that second: `second << 32 | lines`.
    written: AtomicU64,
    left_out: AtomicU64,
}

impl Budget {
    /// Returns unused budgets. The thread of `queue` writes the reports.
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Budget {
            queue,
            started: Instant::now(),
            kinds: DashMap::new(),
            reported_full: AtomicU64::new(0),
            reported_failed: AtomicU64::new(0),
        }
    }

    fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if metadata.name() == UNBUDGETED {
            return true;
        }
        let second = self.started.elapsed().as_secs();
        // No lock of the map is held: recording the message of a line runs code of its caller.
        let known = self.kinds.get(&metadata.callsite()).map(|kind| Arc::clone(&kind));
        let kind = known.unwrap_or_else(|| {
            Arc::clone(&self.kinds.entry(metadata.callsite()).or_insert_with(|| Arc::new(Kind::new(metadata))))
        });
        if kind.admits(second) {
            return true;
        }
        kind.leave_out(event);
        LOST.budget.fetch_add(1, Ordering::Relaxed);
        self.queue.report_later();
        false
    }

    /// Logs the numbers of lines that were left out and lost in the last `within`.
    pub(super) fn report(&self, within: Duration) {
        let within = match within.as_secs() {
            0 | 1 => "second".to_owned(),
            seconds => format!("{seconds} seconds"),
        };
        let counts = |kind: &Kind| Some(kind.left_out.swap(0, Ordering::AcqRel)).filter(|count| *count > 0);
        let named = |kind: &Kind, count| (count, kind.level, kind.target, kind.message.get().cloned());
        let left_out: Vec<_> = self.kinds.iter().filter_map(|kind| Some(named(&kind, counts(&kind)?))).collect();
        for (count, level, kind_target, kind) in left_out {
            if level <= Level::WARN {
                warn!(
                    name: UNBUDGETED, target: TARGET, left_out = count, kind, kind_target,
                    "{count} log lines of this kind were left out in the last {within}"
                );
            } else {
                info!(
                    name: UNBUDGETED, target: TARGET, left_out = count, kind, kind_target,
                    "{count} log lines of this kind were left out in the last {within}"
                );
            }
        }
        for (lost, reported, why) in [
            (&LOST.full, &self.reported_full, "the log is read too slowly"),
            (&LOST.failed, &self.reported_failed, "they could not be written"),
        ] {
            let lost = lost.load(Ordering::Relaxed);
            let new = lost - reported.swap(lost, Ordering::Relaxed);
            if new > 0 {
                warn!(name: UNBUDGETED, target: TARGET, lost = new, "{new} log lines were lost: {why}");
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for BudgetLayer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.admits(event)
    }
}

impl Kind {
    fn new(metadata: &'static Metadata<'static>) -> Self {
        Kind {
            level: *metadata.level(),
            target: metadata.target(),
            message: OnceLock::new(),
            written: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Takes one line from the budget of `second`. Returns false if the budget is used up, which writes nothing.
    fn admits(&self, second: u64) -> bool {
        let take = |written: u64| match written & u64::from(u32::MAX) {
            // A thread that was delayed sees a later second than its own.
            lines if written >> 32 >= second => (lines < LINES_PER_SECOND).then_some(written + 1),
            _ => Some(second << 32 | 1),
        };
        self.written.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn leave_out(&self, event: &Event<'_>) {
        self.message.get_or_init(|| {
            let mut message = Message(String::new());
            event.record(&mut message);
            message.0.truncate(message.0.floor_char_boundary(MESSAGE_MAX_BYTES));
            message.0
        });
        self.left_out.fetch_add(1, Ordering::AcqRel);
    }
}

/// The message of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use tracing::debug;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn kind() -> Kind {
        Kind {
            level: Level::INFO,
            target: "here",
            message: OnceLock::new(),
            written: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    #[test]
    fn each_second_has_its_budget() {
        let kind = kind();
        let taken = |second: u64| (0..1000).filter(|_| kind.admits(second)).count() as u64;
        assert_eq!(taken(0), LINES_PER_SECOND);
        assert_eq!(taken(0), 0);
        assert_eq!(taken(1), LINES_PER_SECOND);
        // The second of a thread that was delayed.
        assert_eq!(taken(0), 0);
        assert_eq!(taken(7), LINES_PER_SECOND);
    }

    #[test]
    fn threads_share_a_budget() {
        let kind = Arc::new(kind());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let kind = Arc::clone(&kind);
                std::thread::spawn(move || (0..1000).filter(|_| kind.admits(3)).count() as u64)
            })
            .collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>(), LINES_PER_SECOND);
    }

    /// A writer that collects the logged lines.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_left_out_is_reported_by_kind_and_what_has_no_budget_is_written() {
        let budget = Arc::new(Budget::new(Arc::default()));
        let written = Written::default();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer({
            let written = written.clone();
            move || written.clone()
        });
        let subscriber = tracing_subscriber::registry().with(BudgetLayer(Arc::clone(&budget))).with(lines);
        let second = || budget.started.elapsed().as_secs();
        let (from, to) = tracing::subscriber::with_default(subscriber, || {
            let from = second();
            for number in 0..1000 {
                info!(number, "somebody knocks");
                debug!(target: "elsewhere", "somebody knocks quietly");
                info!(name: UNBUDGETED, "a guest is in");
            }
            let to = second();
            budget.report(Duration::from_secs(1));
            budget.report(Duration::from_secs(1));
            (from, to)
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count() as u64;
        assert_eq!(count("a guest is in"), 1000);
        for message in ["somebody knocks", "somebody knocks quietly"] {
            let there = text
                .lines()
                .filter(|line| line.trim_end().ends_with(message) || line.contains(&format!("{message} number")));
            let there = there.count() as u64;
            assert!((LINES_PER_SECOND..=LINES_PER_SECOND * (to - from + 1)).contains(&there), "{there} {message}");
            let left_out = format!("{} log lines of this kind were left out in the last second", 1000 - there);
            let named = format!("kind=\"{message}\"");
            assert_eq!(
                text.lines().filter(|line| line.contains(&left_out) && line.contains(&named)).count(),
                1,
                "{text}"
            );
        }
        assert_eq!(count("kind_target=\"elsewhere\""), 1);
        assert_eq!(count("were left out"), 2, "what was reported is not reported again");
    }
}
