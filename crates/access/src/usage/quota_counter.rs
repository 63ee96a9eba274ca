use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use tidegate_connections::redis_client::scripts::QuotaRequest;

/// Number of uses that a node reserves while a quota is far from exhausted.
pub(super) const RESERVE: u64 = 1000;

/// Number of uses that must remain for other nodes when a node reserves. It is more than a cluster uses within
/// [`RESERVE_LIFE`], so that no use is refused because of unused reservations on another node.
pub(super) const LEFT: u64 = 1_000_000;

/// Time for which a reservation may be used; then it is given back.
pub(super) const RESERVE_LIFE: Duration = Duration::from_secs(1);

/// A node's view of one count. Pure code: the caller passes the answers of Redis.
#[derive(Debug, Default)]
pub(super) struct QuotaCounter {
    limit: u64,
    /// Reserved uses: counted in Redis, and not spent yet.
    reserve: u64,
    /// Time until which the reserved uses may be spent.
    until: Option<Instant>,
    /// Uses that wait for Redis.
    waiting: Vec<oneshot::Sender<bool>>,
    /// Count in the last answer of Redis.
    known: u64,
    /// Number that Redis has yet to add: uses while it was away, less reservations that are given back.
    owed: i64,
}

/// A request of one counter to Redis, and the uses that wait for it.
#[derive(Debug)]
pub(super) struct PendingQuota {
    pub(super) ask: QuotaRequest,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Number of uses that Redis counted, and the count afterwards.
    Taken(u64, u64),
    /// No answer in time. Redis has probably received the request.
    Late,
    /// No answer. Redis has not executed the request.
    Lost,
}

impl QuotaCounter {
    /// Spends a reserved use. The first value is true if there was one, the second if it is time to reserve more.
    pub(super) fn spend(&mut self, limit: u64, now: Instant) -> (bool, bool) {
        self.limit = limit;
        if self.reserve == 0 || self.until.is_none_or(|until| until <= now) {
            return (false, false);
        }
        self.reserve -= 1;
        (true, self.reserve == RESERVE / 2)
    }

    /// Counts a use without Redis, from the last count that this node knows. Returns false if the quota is exhausted.
    pub(super) fn spend_alone(&mut self) -> bool {
        let is_left = self.known.saturating_add_signed(self.owed) < self.limit;
        self.owed += i64::from(is_left);
        is_left
    }

    /// Adds a use that waits for Redis. Returns true if it is the first.
    pub(super) fn wait(&mut self, answer: oneshot::Sender<bool>) -> bool {
        self.waiting.push(answer);
        self.waiting.len() == 1
    }

    /// Returns the request that is due now, if any. A node that `leaves` reserves nothing.
    pub(super) fn ask(&mut self, now: Instant, leaves: bool) -> Option<PendingQuota> {
        let is_over = self.until.is_none_or(|until| until <= now);
        if leaves || is_over {
            self.owed -= i64::try_from(std::mem::take(&mut self.reserve)).unwrap_or(0);
        }
        let is_low = self.reserve > 0 && self.reserve <= RESERVE / 2;
        if self.waiting.is_empty() && self.owed == 0 && (leaves || !is_low) {
            return None;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let take = waiting.len() as u64;
        let more = if leaves || (take == 0 && !is_low) { 0 } else { RESERVE };
        let owed = std::mem::take(&mut self.owed);
        let ask = QuotaRequest { limit: self.limit, owed, known: self.known, take, more, left: LEFT };
        Some(PendingQuota { ask, waiting })
    }

    /// Applies the outcome `answer` of a request that was sent at `sent`, and answers the waiting uses.
    pub(super) fn answered(&mut self, asked: PendingQuota, answer: Answer, sent: Instant) {
        let PendingQuota { ask, waiting } = asked;
        match answer {
            Answer::Taken(taken, count) => {
                self.known = count;
                if taken > ask.take {
                    self.reserve += taken - ask.take;
                    self.until = Some(sent + RESERVE_LIFE);
                }
                for (index, waiting) in waiting.into_iter().enumerate() {
                    // A use whose caller no longer waits stays counted.
                    let _ = waiting.send((index as u64) < taken);
                }
            }
            Answer::Late => {
                self.known = self.known.saturating_add_signed(ask.owed);
                for waiting in waiting {
                    let is_left = self.known < ask.limit;
                    self.known += u64::from(is_left);
                    let _ = waiting.send(is_left);
                }
            }
            Answer::Lost => {
                self.owed += ask.owed;
                for waiting in waiting {
                    let _ = waiting.send(self.spend_alone());
                }
            }
        }
    }

    /// Returns the time at which unused reservations have to be given back.
    pub(super) fn gives_back_at(&self) -> Option<Instant> {
        self.until.filter(|_| self.reserve > 0)
    }

    /// Returns true if Redis has yet to add or subtract uses.
    pub(super) fn owes(&self) -> bool {
        self.owed != 0
    }

    /// Returns true if the counter can be removed without losing uses.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.owed == 0 && self.reserve == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: u64 = 10 * LEFT;

    /// A counter, and the count of a simulated Redis.
    #[derive(Default)]
    struct Pair {
        counter: QuotaCounter,
        count: u64,
    }

    impl Pair {
        /// Makes `uses` uses at once; Redis answers as the script does. Returns the number that were accepted.
        fn spend(&mut self, uses: usize, limit: u64, now: Instant) -> usize {
            let mut answers = Vec::new();
            let mut taken = 0;
            for _ in 0..uses {
                if self.counter.spend(limit, now).0 {
                    taken += 1;
                    continue;
                }
                let (answer, counted) = oneshot::channel();
                self.counter.wait(answer);
                answers.push(counted);
            }
            self.talk(now, false);
            taken + answers.into_iter().filter_map(|mut counted| counted.try_recv().ok()).filter(|taken| *taken).count()
        }

        fn talk(&mut self, now: Instant, leaves: bool) {
            let Some(asked) = self.counter.ask(now, leaves) else { return };
            let QuotaRequest { limit, owed, take, more, left, .. } = asked.ask;
            self.count = self.count.saturating_add_signed(owed);
            let free = limit.saturating_sub(self.count);
            let taken = if free >= take + more + left { take + more } else { take.min(free) };
            self.count += taken;
            self.counter.answered(asked, Answer::Taken(taken, self.count), now);
        }
    }

    #[test]
    fn near_its_end_a_quota_is_taken_one_by_one() {
        let (mut pair, now) = (Pair::default(), Instant::now());
        assert_eq!((pair.spend(3, 5, now), pair.count), (3, 3));
        assert_eq!((pair.spend(3, 5, now), pair.count), (2, 5));
        assert_eq!((pair.spend(1, 5, now), pair.count), (0, 5));
        assert_eq!((pair.spend(1, 6, now), pair.count), (1, 6));
        assert!(pair.counter.is_settled());
    }

    #[test]
    fn far_from_its_end_it_is_taken_ahead_and_given_back() {
        let (mut pair, now) = (Pair::default(), Instant::now());
        assert_eq!((pair.spend(1, FAR, now), pair.count), (1, 1 + RESERVE));
        assert_eq!((pair.spend(499, FAR, now), pair.count), (499, 1 + RESERVE), "nobody was asked");
        assert_eq!((pair.spend(1, FAR, now), pair.count), (1, 1 + 2 * RESERVE), "half is gone: more is taken in time");
        let later = pair.counter.gives_back_at().expect("a time");
        pair.talk(later, false);
        assert_eq!(pair.count, 501);
        assert!(pair.counter.is_settled());
        assert_eq!(pair.spend(2, FAR, later), 2);
        pair.talk(later, true);
        assert_eq!(pair.count, 503, "who leaves keeps nothing");
    }

    #[test]
    fn without_an_answer_it_goes_on_from_what_it_knows() {
        for (answer, owes) in [(Answer::Lost, true), (Answer::Late, false)] {
            let (mut pair, now) = (Pair::default(), Instant::now());
            assert_eq!(pair.spend(3, 5, now), 3);
            let counted: Vec<_> = (0..3)
                .map(|_| {
                    let (answer, counted) = oneshot::channel();
                    pair.counter.wait(answer);
                    counted
                })
                .collect();
            let asked = pair.counter.ask(now, false).expect("a question");
            pair.counter.answered(asked, answer, now);
            let taken = counted.into_iter().filter_map(|mut counted| counted.try_recv().ok()).filter(|taken| *taken);
            assert_eq!(taken.count(), 2, "{answer:?}");
            assert!(!pair.counter.spend_alone(), "{answer:?}");
            assert_eq!(pair.counter.owes(), owes, "{answer:?}");
        }
    }
}
