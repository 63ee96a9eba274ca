use std::mem;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;

/// How long a cause that was said is not said again.
const INTERVAL: Duration = Duration::from_secs(60);

/// Causes that are told apart within [`INTERVAL`]; further ones are only counted.
const CAUSES_MAX: usize = 8;

/// A warning about something that goes on for a while: it is due when that begins, when its cause changes, and otherwise
/// once a minute. The caller writes the line, so that it has the caller's words and fields.
#[derive(Debug, Default)]
pub struct RepeatedWarning {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: Vec<Said>,
    /// Times that no line was due since the last line.
    left_out: u64,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Said {
    cause: String,
    at: Instant,
}

impl RepeatedWarning {
    /// Notes that it happened once more. `Some` if a line is due now: how often it happened since the last line without
    /// one.
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

    /// Notes that it is over: the next time is said at once. `true` if it happened since this was called last.
    pub fn over(&self) -> bool {
        mem::take(&mut *self.lock()).last.is_some()
    }

    /// [`RepeatedWarning::over`], once it has not happened for longer than `quiet`.
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
        // Causes that take turns are not said at each turn.
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
