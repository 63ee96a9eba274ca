use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::redis_client::scripts::QuotaRequest;

/// What a node takes ahead of a quota that is far from used up.
pub(super) const RESERVE: u64 = 1000;

/// So many must be left for others when a node takes ahead: more than a cluster uses in the life of what was taken, so
/// that nobody is ever refused for what lies unused on another node.
pub(super) const LEFT: u64 = 1_000_000;

/// How long what was taken ahead may be used; then it is given back.
pub(super) const RESERVE_LIFE: Duration = Duration::from_secs(1);

/// One quota as a node knows it. Pure: what Redis says comes in.
#[derive(Debug, Default)]
pub(super) struct QuotaCounter {
    limit: u64,
    /// Counted in Redis, and not used yet.
    reserve: u64,
    /// How long that may be used.
    until: Option<Instant>,
    /// Who waits for Redis.
    waiting: Vec<oneshot::Sender<bool>>,
    /// The count when Redis was last heard.
    known: u64,
    /// What Redis has yet to add: uses while it was away, less what is given back.
    owed: i64,
}

/// What a counter asks of Redis, and for whom.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ask: QuotaRequest,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// What became of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// How many were taken, and the count afterwards.
    Taken(u64, u64),
    /// It reached Redis as far as can be told, but the answer did not come in time.
    Late,
    /// It did not happen.
    Lost,
}

impl QuotaCounter {
    /// Uses one of those that were taken ahead. The second value says whether it is time to take more.
    pub(super) fn spend(&mut self, limit: u64, now: Instant) -> (bool, bool) {
        self.limit = limit;
        if self.reserve == 0 || self.until.is_none_or(|until| until <= now) {
            return (false, false);
        }
        self.reserve -= 1;
        (true, self.reserve == RESERVE / 2)
    }

    /// Uses one without Redis: this node goes on from the count that it knows. `false` if nothing is left by that.
    pub(super) fn spend_alone(&mut self) -> bool {
        let is_left = self.known.saturating_add_signed(self.owed) < self.limit;
        self.owed += i64::from(is_left);
        is_left
    }

    /// Waits for Redis. `true` for the first.
    pub(super) fn wait(&mut self, answer: oneshot::Sender<bool>) -> bool {
        self.waiting.push(answer);
        self.waiting.len() == 1
    }

    /// What is to be asked now, if anything. A node that `leaves` takes nothing ahead.
    pub(super) fn ask(&mut self, now: Instant, leaves: bool) -> Option<Asked> {
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
        Some(Asked { ask, waiting })
    }

    /// What became of it. `sent` is when it was asked.
    pub(super) fn answered(&mut self, asked: Asked, answer: Answer, sent: Instant) {
        let Asked { ask, waiting } = asked;
        match answer {
            Answer::Taken(taken, count) => {
                self.known = count;
                if taken > ask.take {
                    self.reserve += taken - ask.take;
                    self.until = Some(sent + RESERVE_LIFE);
                }
                for (index, waiting) in waiting.into_iter().enumerate() {
                    // Who no longer waits has been counted all the same.
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

    /// When Redis is to be asked although nobody waits: to give back what lies unused.
    pub(super) fn gives_back_at(&self) -> Option<Instant> {
        self.until.filter(|_| self.reserve > 0)
    }

    /// Whether Redis has yet to hear something.
    pub(super) fn owes(&self) -> bool {
        self.owed != 0
    }

    /// Whether nothing is lost with it.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.owed == 0 && self.reserve == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: u64 = 10 * LEFT;

    /// A counter, and what Redis has counted for it.
    #[derive(Default)]
    struct Pair {
        counter: QuotaCounter,
        count: u64,
    }

    impl Pair {
        /// Uses some at once; Redis answers as the script does. How many were let through.
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
