use std::mem;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use tidegate_core::lock::lock;

/// Time for which a cause is not reported again.
const INTERVAL: Duration = Duration::from_secs(60);

/// Most causes that are reported within [`INTERVAL`]. Further ones are only counted.
const CAUSES_MAX: usize = 8;

/// A warning about a condition that lasts for a while. It is due when the condition begins, when its cause changes, and
/// otherwise once a minute. The caller writes the line, so that the line has the caller's text and fields.
#[derive(Debug, Default)]
pub struct RepeatedWarning {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: Vec<Said>,
    /// Number of occurrences without a line since the last line.
    left_out: u64,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Said {
    cause: String,
    at: Instant,
}

impl RepeatedWarning {
    /// Notes that the condition occurred again. If a line is due now, returns the number of occurrences since the last
    /// line.
    pub fn due(&self, cause: &str) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.lock();
        state.last = Some(now);
        state.said.retain(|said| now.duration_since(said.at) < INTERVAL);
        if state.said.len() >= CAUSES_MAX || state.said.iter().any(|said| said.cause == cause) {
            state.left_out += 1;
            return None;
        }
        state.said.push(Said { cause: cause.to_owned(), at: now });
        Some(mem::take(&mut state.left_out))
    }

    /// Notes that the condition is over, so the next occurrence is reported at once. Returns true if it occurred since
    /// the last call.
    pub fn over(&self) -> bool {
        mem::take(&mut *self.lock()).last.is_some()
    }

    /// Does the same as [`RepeatedWarning::over`], but only if the condition has not occurred for longer than `quiet`.
    pub fn over_after(&self, quiet: Duration) -> bool {
        let mut state = self.lock();
        let is_over = state.last.is_some_and(|last| last.elapsed() > quiet);
        if is_over {
            *state = State::default();
        }
        is_over
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_is_due_at_first_when_the_cause_changes_and_once_a_minute() {
        let warning = RepeatedWarning::default();
        assert_eq!(warning.due("a"), Some(0));
        assert_eq!(warning.due("a"), None);
        assert_eq!(warning.due("a"), None);
        assert_eq!(warning.due("b"), Some(2));
        // Alternating causes are not reported at each change.
        assert_eq!(warning.due("a"), None);
        advance(INTERVAL).await;
        assert_eq!(warning.due("a"), Some(1));
        assert_eq!(warning.due("b"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_is_said_at_once_when_it_comes_back() {
        let warning = RepeatedWarning::default();
        assert!(!warning.over());
        assert_eq!(warning.due("a"), Some(0));
        assert_eq!(warning.due("a"), None);
        assert!(warning.over());
        assert!(!warning.over());
        assert_eq!(warning.due("a"), Some(0));
        assert!(!warning.over_after(INTERVAL));
        advance(INTERVAL * 2).await;
        assert!(warning.over_after(INTERVAL));
        assert!(!warning.over_after(INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn ever_new_causes_do_not_make_ever_more_lines() {
        let warning = RepeatedWarning::default();
        let due = (0..100).filter(|number: &usize| warning.due(&number.to_string()).is_some()).count();
        assert_eq!(due, CAUSES_MAX);
        advance(INTERVAL).await;
        assert_eq!(warning.due("another"), Some(100 - CAUSES_MAX as u64));
    }
}
