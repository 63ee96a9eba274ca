use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep_until, timeout};

/// The serving lease: the time until which this node may serve its clients. Each proof that nobody can have condemned
/// the node extends it. It runs out by itself, even while the process is stopped.
///
/// The gate is open while the lease lasts, and shut when it has run out. While it is shut, nothing is dispatched,
/// written to a socket or answered.
#[derive(Debug)]
pub struct ServingGate {
    begin: Instant,
    /// Microseconds after `begin`; [`FOREVER`] if the lease never runs out.
    deadline: AtomicU64,
    opened: Arc<Notify>,
    /// Longest time for which clients are held while the gate is shut; then they are closed.
    hold: Duration,
}

const FOREVER: u64 = u64::MAX;

impl ServingGate {
    /// Returns a serving lease that never runs out.
    pub fn open_forever() -> Self {
        ServingGate {
            begin: Instant::now(),
            deadline: AtomicU64::new(FOREVER),
            opened: Arc::default(),
            hold: Duration::MAX,
        }
    }

    /// Returns a serving lease that has not begun. While the gate is shut, clients are held for `hold`.
    pub fn shut(hold: Duration) -> Self {
        ServingGate { deadline: AtomicU64::new(0), hold, ..ServingGate::open_forever() }
    }

    /// Returns true if the gate is open. Reads the clock once, and not at all if the lease never runs out.
    pub fn is_open(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        deadline == FOREVER || micros(self.begin.elapsed()) < deadline
    }

    /// Returns the time for which the gate stays open without another proof; `None` if it is shut, or open for ever.
    pub fn open_for(&self) -> Option<Duration> {
        let deadline = self.deadline.load(Ordering::Acquire);
        let left = deadline.checked_sub(micros(self.begin.elapsed()));
        left.filter(|_| deadline != FOREVER).map(Duration::from_micros)
    }

    /// Returns the time for which the gate has been shut; `None` if it is open.
    pub fn shut_for(&self) -> Option<Duration> {
        let deadline = self.deadline.load(Ordering::Acquire);
        let now = micros(self.begin.elapsed());
        (deadline != FOREVER && now >= deadline).then(|| Duration::from_micros(now - deadline))
    }

    /// Extends the serving lease to `deadline`, unless it lasts longer. Opens a gate that is shut; tasks that wait for
    /// it go on.
    pub fn open_until(&self, deadline: Instant) {
        let deadline = micros(deadline.saturating_duration_since(self.begin));
        self.deadline.fetch_max(deadline, Ordering::AcqRel);
        self.opened.notify_waiters();
    }

    /// Extends the serving lease to `deadline` if it has not run out. A gate that is shut stays shut.
    pub fn prolong_until(&self, deadline: Instant) {
        let deadline = micros(deadline.saturating_duration_since(self.begin));
        let prolonged = |before: u64| (micros(self.begin.elapsed()) < before).then_some(before.max(deadline));
        if self.deadline.fetch_update(Ordering::AcqRel, Ordering::Acquire, prolonged).is_ok() {
            self.opened.notify_waiters();
        }
    }

    /// Ends the serving lease at once, however long it would last.
    pub fn close(&self) {
        self.deadline.store(micros(self.begin.elapsed()), Ordering::Release);
        // Tasks that wait for the old deadline read the new one.
        self.opened.notify_waiters();
    }

    /// Resolves at the next [`ServingGate::open_until`] after this call. Ask [`ServingGate::is_open`] then, and before
    /// waiting.
    pub fn next_opening(&self) -> OwnedNotified {
        Arc::clone(&self.opened).notified_owned()
    }

    /// Waits until the gate is open.
    pub async fn opened(&self) {
        loop {
            let opening = self.next_opening();
            if self.is_open() {
                return;
            }
            opening.await;
        }
    }

    /// Waits until the gate is open, for as long as clients are held. Returns false if it is still shut then.
    pub async fn opened_in_time(&self) -> bool {
        let left = self.hold.saturating_sub(self.shut_for().unwrap_or_default());
        timeout(left, self.opened()).await.is_ok()
    }

    /// Waits until the gate has been shut for as long as clients are held.
    pub async fn given_up(&self) {
        loop {
            let deadline = self.deadline.load(Ordering::Acquire);
            if deadline == FOREVER {
                return std::future::pending().await;
            }
            let opening = self.next_opening();
            let shuts_at = self.begin + Duration::from_micros(deadline);
            tokio::select! {
                biased;
                () = opening => continue,
                () = sleep_until(shuts_at) => {}
            }
            // After a process was stopped, the hold counts from when it runs again: only now can a proof arrive.
            tokio::select! {
                biased;
                () = self.opened() => {}
                () = tokio::time::sleep(self.hold) => return,
            }
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

    const HOLD: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn it_shuts_at_its_deadline_and_opens_again() {
        let gate = ServingGate::shut(HOLD);
        assert!(!gate.is_open());
        gate.open_until(Instant::now() + Duration::from_millis(10));
        assert!(gate.is_open());
        gate.open_until(Instant::now() + Duration::from_millis(5));
        advance(Duration::from_millis(9)).await;
        assert!(gate.is_open(), "an older proof takes nothing away");
        advance(Duration::from_millis(1)).await;
        assert!(!gate.is_open());
        assert_eq!(gate.shut_for(), Some(Duration::ZERO));
        let open = async {
            gate.open_until(Instant::now() + Duration::from_millis(10));
        };
        tokio::join!(gate.opened(), open);
        assert!(gate.is_open());
        gate.close();
        assert!(!gate.is_open());
        gate.prolong_until(Instant::now() + HOLD);
        assert!(!gate.is_open(), "it has shut");
        gate.open_until(Instant::now() + HOLD / 2);
        gate.prolong_until(Instant::now() + HOLD);
        advance(HOLD / 2).await;
        assert!(gate.is_open());
        assert!(ServingGate::open_forever().shut_for().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_held_for_a_while_and_then_given_up() {
        let gate = ServingGate::shut(HOLD);
        let start = Instant::now();
        gate.open_until(start + Duration::from_millis(10));
        let proof = async {
            advance(Duration::from_millis(50)).await;
            gate.open_until(start + Duration::from_millis(60));
        };
        tokio::join!(gate.given_up(), proof);
        assert_eq!(start.elapsed(), Duration::from_millis(160));
        assert!(!gate.opened_in_time().await);
    }
}
