//! The queue of log lines, and the thread that writes them: the only place in the process where logging may block.

use std::io::{self, Write as _};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::log_lines::LOST;
use tidegate_core::lock::lock;

/// Most bytes of lines that wait to be written. More are lost. The thread that writes may hold as many again.
const QUEUE_MAX_BYTES: usize = 1024 * 1024;

/// The part of the queue that bulk lines may fill, in bytes. The rest is kept for other lines.
const BULK_MAX_BYTES: usize = QUEUE_MAX_BYTES / 4 * 3;

/// The size up to which reports about the log itself may fill the queue, in bytes. There are few such lines a second,
/// each of a bounded length.
const OWN_MAX_BYTES: usize = QUEUE_MAX_BYTES + 256 * 1024;

/// Capacity that an empty buffer keeps, in bytes.
const KEPT_BYTES: usize = 128 * 1024;

/// Most bytes that are written at once, unless a single line is longer. Linux writes this much to a pipe as a whole, so
/// other processes that write to the same pipe do not cut lines in two.
const WRITE_MAX_BYTES: usize = 4096;

/// Time between two tries to write to a non-blocking descriptor that takes nothing now.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Time from the first line that was left out or lost to the report about all such lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time that the end of the process waits while stderr takes nothing.
const STALL_MAX: Duration = Duration::from_millis(300);
/// Longest time that the end of the process waits for the last lines.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

/// The part of the queue that a line may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The part for lines of which an operator has enabled very many.
    Bulk,
    Usual,
    /// The part for reports about the log itself.
    Own,
}

impl Room {
    fn max_bytes(self) -> usize {
        match self {
            Room::Bulk => BULK_MAX_BYTES,
            Room::Usual => QUEUE_MAX_BYTES,
            Room::Own => OWN_MAX_BYTES,
        }
    }
}

/// Lines on their way to stderr.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the thread that writes.
    work: Condvar,
    /// Wakes the thread that waits for the last lines.
    progress: Condvar,
    /// True if lines were left out or lost that no report has included.
    is_unreported: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Number of successful writes.
    writes: u64,
    /// True while the thread handles the work that it has taken.
    is_busy: bool,
    is_closing: bool,
}

/// The next work of the thread.
enum Work {
    Write(Vec<u8>),
    Report(Duration),
}

impl Queue {
    /// Appends one line, or several that stay together. Never waits for stderr.
    pub(super) fn append(&self, lines: &[u8], room: Room) {
        let mut state = self.lock();
        if state.lines.len() + lines.len() > room.max_bytes() {
            drop(state);
            LOST.full.fetch_add(1, Ordering::Relaxed);
            return self.report_later();
        }
        let was_empty = state.lines.is_empty();
        state.lines.extend_from_slice(lines);
        drop(state);
        if was_empty {
            self.work.notify_one();
        }
    }

    /// Requests a report, soon, about lines that were left out or lost.
    pub(super) fn report_later(&self) {
        if !self.is_unreported.swap(true, Ordering::AcqRel) {
            // While the lock is held, the thread is either about to check, or asleep and will be woken.
            drop(self.lock());
            self.work.notify_one();
        }
    }

    /// Returns true if the queue is so full that a caller with many lines should wait.
    pub(super) fn is_filling(&self) -> bool {
        self.lock().lines.len() > QUEUE_MAX_BYTES / 2
    }

    /// Writes the lines of the queue, for the life of the process. `report` logs the numbers of lines that were left
    /// out and lost within a time.
    pub(super) fn run(&self, report: impl Fn(Duration)) {
        let mut spare = Vec::new();
        let (mut report_at, mut has_failed) = (None, false);
        loop {
            match self.next(mem::take(&mut spare), &mut report_at) {
                Work::Write(mut lines) => {
                    let is_written = self.write(&lines);
                    if is_written && has_failed {
                        self.report_later();
                    }
                    has_failed = !is_written;
                    lines.clear();
                    lines.shrink_to(KEPT_BYTES);
                    spare = lines;
                }
                Work::Report(within) => report(within),
            }
        }
    }

    /// Waits for work. `spare` is an empty buffer, and `report_at` is the time of the next report.
    fn next(&self, spare: Vec<u8>, report_at: &mut Option<Instant>) -> Work {
        let mut state = self.lock();
        state.is_busy = false;
        self.progress.notify_all();
        loop {
            let now = Instant::now();
            if self.is_unreported.load(Ordering::Acquire) {
                let due = *report_at.get_or_insert(now + REPORT_INTERVAL);
                if now >= due || state.is_closing {
                    state.is_busy = true;
                    *report_at = None;
                    self.is_unreported.store(false, Ordering::Release);
                    return Work::Report((now + REPORT_INTERVAL).duration_since(due));
                }
            }
            if !state.lines.is_empty() {
                state.is_busy = true;
                return Work::Write(mem::replace(&mut state.lines, spare));
            }
            state = match *report_at {
                Some(due) => {
                    let waited = self.work.wait_timeout(state, due.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Writes lines to stderr. Returns false if writing failed and some of the lines are lost.
    fn write(&self, lines: &[u8]) -> bool {
        let mut rest = lines;
        while !rest.is_empty() {
            // The lock keeps whole the lines of an access log that goes to stderr.
            match io::stderr().lock().write(&rest[..first_part(rest)]) {
                Ok(count @ 1..) => {
                    rest = &rest[count..];
                    self.lock().writes += 1;
                    self.progress.notify_all();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(RETRY_INTERVAL),
                // Reported when writing works again.
                Ok(_) | Err(_) => {
                    let lost = rest.iter().filter(|byte| **byte == b'\n').count();
                    LOST.failed.fetch_add(lost as u64, Ordering::Relaxed);
                    return false;
                }
            }
        }
        true
    }

    /// Waits until all lines are written, but at most [`LAST_LINES_MAX`], and no longer than [`STALL_MAX`] without
    /// progress.
    pub(super) fn finish(&self) {
        let until = Instant::now() + LAST_LINES_MAX;
        let mut state = self.lock();
        state.is_closing = true;
        self.work.notify_one();
        while state.is_busy || !state.lines.is_empty() || self.is_unreported.load(Ordering::Acquire) {
            let (writes, asleep) = (state.writes, Instant::now());
            if asleep >= until {
                return;
            }
            state = self.progress.wait_timeout(state, STALL_MAX).unwrap_or_else(PoisonError::into_inner).0;
            if state.writes == writes && asleep.elapsed() >= STALL_MAX {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Returns the number of bytes of `lines` that are written at once. They are whole lines.
fn first_part(lines: &[u8]) -> usize {
    let end_of_line = |byte: &u8| *byte == b'\n';
    let fitting = &lines[..lines.len().min(WRITE_MAX_BYTES)];
    let whole = fitting.iter().rposition(end_of_line).or_else(|| lines.iter().position(end_of_line));
    whole.map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(queue: &Queue, line: &[u8], room: Room) -> usize {
        let before = queue.lock().lines.len();
        (0..2000).for_each(|_| queue.append(line, room));
        queue.lock().lines.len() - before
    }

    #[test]
    fn a_full_queue_loses_lines_and_bulk_leaves_room_for_the_others() {
        let (queue, line) = (Queue::default(), [b'\n'; 1024]);
        assert_eq!(taken(&queue, &line, Room::Bulk), BULK_MAX_BYTES);
        assert!(queue.is_filling());
        assert_eq!(taken(&queue, &line, Room::Usual), QUEUE_MAX_BYTES - BULK_MAX_BYTES);
        assert_eq!(taken(&queue, &line, Room::Own), OWN_MAX_BYTES - QUEUE_MAX_BYTES);
        assert!(queue.is_unreported.load(Ordering::Relaxed));
    }

    #[test]
    fn a_report_is_due_a_second_after_the_first_loss_and_lines_go_before_it() {
        let (queue, mut report_at) = (Queue::default(), None);
        queue.report_later();
        queue.append(b"a\n", Room::Usual);
        assert!(matches!(queue.next(Vec::new(), &mut report_at), Work::Write(lines) if lines == b"a\n"));
        assert!(matches!(queue.next(Vec::new(), &mut report_at), Work::Report(within) if within >= REPORT_INTERVAL));
        // The report ends the loss.
        queue.append(b"b\n", Room::Usual);
        assert!(matches!(queue.next(Vec::new(), &mut report_at), Work::Write(_)));
        assert!(report_at.is_none());
    }

    #[test]
    fn the_end_waits_for_nobody_who_takes_nothing() {
        let queue = Queue::default();
        queue.finish();
        queue.append(b"a\n", Room::Usual);
        // There is no thread at all.
        queue.finish();
        assert_eq!(queue.lock().lines, b"a\n");
    }

    #[test]
    fn whole_lines_are_written_at_once() {
        let check = |lines: &[u8], expected: usize| assert_eq!(first_part(lines), expected);
        check(b"a\n", 2);
        check(b"a\nb\n", 4);
        check(b"no end", 6);
        let long = [b"a".repeat(WRITE_MAX_BYTES), b"\nb\n".to_vec()].concat();
        check(&long, WRITE_MAX_BYTES + 1);
        let two = [b"a\n".to_vec(), b"b".repeat(WRITE_MAX_BYTES), b"\n".to_vec()].concat();
        check(&two, 2);
        let many = b"0123456\n".repeat(WRITE_MAX_BYTES);
        check(&many, WRITE_MAX_BYTES);
    }
}
