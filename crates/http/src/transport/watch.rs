use std::time::Duration;

use tokio::time::Instant;

use super::Traffic;

/// Number of looks within one timeout: a transfer that stops is noticed at most one part of the timeout late.
pub const LOOKS: u32 = 4;

/// A comparison of looks at the traffic of a peer that owes a sign of life. It finds out if bytes still move. It is
/// pure: looks are passed in, at any times.
#[derive(Debug)]
pub struct Watch {
    at: Instant,
    last: Traffic,
    /// Offset at which the question for a sign of life ends, among all bytes that were ever written. `None` while some
    /// bytes have not reached the kernel, because the question may be among them.
    asked: Option<u64>,
}

/// The movement since the previous look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// True if the peer's TCP has acknowledged bytes.
    pub taken: bool,
    /// True if some of those bytes were written before the question, or are the question itself: an answer could not
    /// have come yet.
    pub before_question: bool,
    /// True if bytes have come from the peer.
    pub came: bool,
}

impl Watch {
    /// Begins with a first look. `unsent` is true if some bytes have not reached the kernel yet.
    pub fn new(now: Instant, traffic: Traffic, unsent: bool) -> Self {
        Watch { at: now, last: traffic, asked: (!unsent).then_some(traffic.end()) }
    }

    /// Looks again. Returns what has moved since the previous look.
    pub fn look(&mut self, now: Instant, traffic: Traffic, unsent: bool) -> Moved {
        let taken = traffic.acknowledged > self.last.acknowledged;
        let moved = Moved {
            taken,
            before_question: taken && self.asked.is_none_or(|asked| self.last.acknowledged < asked),
            came: traffic.received > self.last.received,
        };
        if self.asked.is_none() && !unsent {
            self.asked = Some(traffic.end());
        }
        (self.at, self.last) = (now, traffic);
        moved
    }

    /// Returns the time of the last look.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Returns the traffic at the last look.
    pub fn last(&self) -> Traffic {
        self.last
    }

    /// Returns the time of the next look at a peer that has been silent since `since` and is given up after `timeout`.
    /// There are several looks, and one when the timeout is over; after that one the result is `None`.
    pub fn next_look(watch: Option<&Self>, since: Instant, timeout: Duration) -> Option<Instant> {
        let end = since + timeout;
        let looked = watch.map_or(since, |watch| watch.at.max(since));
        (watch.is_none() || looked < end).then(|| end.min(looked + timeout / LOOKS))
    }
}

impl Traffic {
    /// Returns the offset at which all written bytes end.
    fn end(&self) -> u64 {
        self.acknowledged + self.unacknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(acknowledged: u64, unacknowledged: u64, received: u64) -> Traffic {
        Traffic { acknowledged, unacknowledged, received }
    }

    #[test]
    fn bytes_before_the_question_count_and_bytes_behind_it_do_not() {
        let now = Instant::now();
        let mut watch = Watch::new(now, traffic(100, 50, 7), false);
        let mut look = |traffic, unsent| watch.look(now, traffic, unsent);
        let nothing = Moved { taken: false, before_question: false, came: false };
        assert_eq!(look(traffic(100, 80, 7), false), nothing);
        assert_eq!(look(traffic(149, 31, 7), false), Moved { taken: true, before_question: true, came: false });
        assert_eq!(look(traffic(160, 20, 7), false), Moved { taken: true, before_question: true, came: false });
        assert_eq!(look(traffic(170, 10, 7), false), Moved { taken: true, before_question: false, came: false });
        assert_eq!(look(traffic(170, 10, 8), false), Moved { taken: false, before_question: false, came: true });
        assert_eq!(look(traffic(170, 10, 8), false), nothing);
    }

    #[test]
    fn a_question_that_has_not_left_lies_behind_all_that_is_taken() {
        let now = Instant::now();
        let mut watch = Watch::new(now, traffic(100, 50, 0), true);
        for acknowledged in [200, 300] {
            assert!(watch.look(now, traffic(acknowledged, 50, 0), true).before_question);
        }
        assert!(watch.look(now, traffic(320, 80, 0), false).before_question, "it has left, and ends at 400");
        assert!(watch.look(now, traffic(400, 20, 0), false).before_question);
        assert!(!watch.look(now, traffic(420, 20, 0), false).before_question);
    }

    #[test]
    fn the_last_look_is_taken_when_the_timeout_is_over() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let check = |looked: Option<u64>, expected: Option<u64>| {
            let watch = looked.map(|at| Watch::new(start + seconds(at), Traffic::default(), false));
            let next = Watch::next_look(watch.as_ref(), start + seconds(100), seconds(8));
            assert_eq!(next, expected.map(|at| start + seconds(at)), "{looked:?}");
        };
        check(None, Some(102));
        check(Some(90), Some(102));
        check(Some(102), Some(104));
        check(Some(107), Some(108));
        check(Some(108), None);
        check(Some(110), None);
    }
}
