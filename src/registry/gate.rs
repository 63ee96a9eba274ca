use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

/// Whether this node may serve its clients: until a deadline that is put off whenever there is proof that nobody can
/// have condemned the node. It shuts by itself, also while the process is stopped.
///
/// While it is shut nothing is dispatched, written to a socket or answered.
#[derive(Debug)]
pub struct Gate {
    begin: Instant,
    /// Microseconds after `begin`; [`FOREVER`] for none.
    deadline: AtomicU64,
    opened: Arc<Notify>,
}

const FOREVER: u64 = u64::MAX;

impl Gate {
    /// A gate without a deadline.
    pub fn open_forever() -> Self {
        Gate { begin: Instant::now(), deadline: AtomicU64::new(FOREVER), opened: Arc::default() }
    }

    /// Whether it is open. Costs one look at the clock, and none if there is no deadline.
    pub fn is_open(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        deadline == FOREVER || micros(self.begin.elapsed()) < deadline
    }

    /// Open until then, whatever was before. Those who wait go on.
    pub fn open_until(&self, deadline: Instant) {
        let deadline = micros(deadline.saturating_duration_since(self.begin));
        self.deadline.store(deadline, Ordering::Release);
        self.opened.notify_waiters();
    }

    /// Resolves at the next [`Gate::open_until`] after this call; ask [`Gate::is_open`] then, and before waiting.
    pub fn next_opening(&self) -> OwnedNotified {
        Arc::clone(&self.opened).notified_owned()
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        loop {
            let opening = self.next_opening();
            if self.is_open() {
                return;
            }
            opening.await;
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(FOREVER - 1)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_shuts_at_its_deadline_and_opens_again() {
        let gate = Gate::open_forever();
        assert!(gate.is_open());
        gate.open_until(Instant::now() + Duration::from_millis(10));
        assert!(gate.is_open());
        advance(Duration::from_millis(10)).await;
        assert!(!gate.is_open());
        let open = async {
            gate.open_until(Instant::now() + Duration::from_millis(10));
        };
        tokio::join!(gate.opened(), open);
        assert!(gate.is_open());
    }
}
