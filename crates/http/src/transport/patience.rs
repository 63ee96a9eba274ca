use std::time::Duration;

use tokio::time::Instant;

use super::{Traffic, Watch};

/// A bounded wait for the end of a connection, which goes on as long as bytes move.
#[derive(Debug)]
pub struct Patience {
    /// Longest time in which nothing may move.
    timeout: Duration,
    until: Instant,
    moved: Instant,
    watch: Option<Watch>,
}

impl Patience {
    /// Begins the wait now. It is over when nothing has moved for `timeout`, at the latest after `max`.
    pub fn new(timeout: Duration, max: Duration) -> Self {
        let now = Instant::now();
        Patience { timeout, until: now + max, moved: now, watch: None }
    }

    /// Returns the time of the next look at the traffic, or `None` if the wait is over.
    pub fn next_look(&self) -> Option<Instant> {
        let next = Watch::next_look(self.watch.as_ref(), self.moved, self.timeout)?;
        let looked = self.watch.as_ref().map_or(self.moved, Watch::at);
        (looked < self.until).then(|| next.min(self.until))
    }

    /// Looks at the traffic. Bytes that the peer's TCP acknowledges count as movement. Bytes from the peer count only
    /// with `receiving`: the peer is in the middle of a message that it has to finish first.
    pub fn look(&mut self, traffic: Traffic, receiving: bool) {
        let now = Instant::now();
        match &mut self.watch {
            None => self.watch = Some(Watch::new(now, traffic, true)),
            Some(watch) => {
                let moved = watch.look(now, traffic, true);
                if moved.taken || (moved.came && receiving) {
                    self.moved = now;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(4);
    const MAX: Duration = Duration::from_secs(60);

    /// Returns the number of seconds that a wait lasts if the end does not come, and `see` says what moves.
    async fn waited(receiving: bool, see: impl Fn(u64) -> Traffic) -> u64 {
        let start = Instant::now();
        let mut patience = Patience::new(TIMEOUT, MAX);
        while let Some(at) = patience.next_look() {
            sleep_until(at).await;
            patience.look(see(start.elapsed().as_secs()), receiving);
        }
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_waited_for_while_bytes_move_and_no_longer_than_the_limit() {
        let taken = |acknowledged| Traffic { acknowledged, ..Traffic::default() };
        let come = |received| Traffic { received, ..Traffic::default() };
        assert_eq!(waited(true, |_| taken(7)).await, 4);
        assert_eq!(waited(false, |second| taken(second.min(10))).await, 14);
        assert_eq!(waited(false, taken).await, 60);
        assert_eq!(waited(true, |second| come(second.min(10))).await, 14);
        assert_eq!(waited(false, come).await, 4);
    }
}
