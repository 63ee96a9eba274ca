//! The queues of `$disconnect` events, one for each integration. While a backend is unreachable, its queue tries one
//! event at a time instead of all, and no other backend waits for it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::attempt::{attempt, give_up_if_late};
use crate::data_plane::DataPlane;
use tidegate_core::id::ConnectionId;
use tidegate_core::lock::lock;

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Time for which a queue sleeps when it has nothing to wait for.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// The `apiId` and the `integrationId` of a queue.
type QueueKey = (Arc<str>, Arc<str>);

/// The queues of all integrations. Their number is bounded by the configuration, their length by the registry: each id
/// in a queue is an ended connection there.
#[derive(Debug, Default)]
pub(in crate::data_plane) struct DisconnectQueues {
    queues: Mutex<HashMap<QueueKey, mpsc::UnboundedSender<(ConnectionId, Instant)>>>,
}

impl DisconnectQueues {
    /// Adds the ended connection `id` to the queue `key`. Its event is not sent before `due`. The first connection
    /// starts the queue's task.
    pub(in crate::data_plane) fn add(&self, plane: &Arc<DataPlane>, key: QueueKey, id: ConnectionId, due: Instant) {
        let mut queues = lock(&self.queues);
        let queue = queues.entry(key).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            plane.lifecycle.spawn(run(Arc::clone(plane), receiver));
            sender
        });
        // The task ends only when the process aborts. After that nothing is delivered.
        let _ = queue.send((id, due));
    }
}

/// The result of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data_plane) enum Attempt {
    /// The event is delivered or given up, or no backend wants it.
    Settled,
    /// This node may not send the event, or not now; in the second case it is queued again later. The attempt says
    /// nothing about the backend.
    Dropped,
    /// The event must be sent again, as attempt number `attempt`.
    Again {
        attempt: u32,
        /// The backend as a whole seems to be unreachable.
        is_outage: bool,
    },
}

async fn run(plane: Arc<DataPlane>, mut arrivals: mpsc::UnboundedReceiver<(ConnectionId, Instant)>) {
    let mut pacer = Pacer::default();
    let mut in_flight = FuturesUnordered::new();
    loop {
        let concurrency = usize::from(plane.live().settings.disconnect.concurrency);
        while let Some(id) = pacer.next(Instant::now(), in_flight.len(), concurrency) {
            let plane = &plane;
            in_flight.push(async move { (id, attempt(plane, &id).await) });
        }
        let wake = pacer.wakes_at().unwrap_or_else(|| Instant::now() + NOTHING_DUE);
        tokio::select! {
            biased;
            () = plane.lifecycle.aborting().cancelled() => return,
            Some((id, attempt)) = in_flight.next(), if !in_flight.is_empty() => {
                pacer.record(id, attempt, Instant::now(), rand::random());
                if pacer.outage.is_some() {
                    // Few events are sent while the backend is unreachable, so those that wait are checked here. None
                    // may wait forever.
                    pacer.remove_if(|id| give_up_if_late(&plane, id));
                }
            }
            arrival = arrivals.recv() => match arrival {
                Some((id, due)) => pacer.arrive(id, due),
                None => return,
            },
            () = sleep_until(wake) => {}
        }
    }
}

/// The decision which event is sent next, and when. It has no clock: callers pass the time.
#[derive(Debug, Default)]
struct Pacer {
    ready: VecDeque<ConnectionId>,
    delayed: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
    /// The outage of the backend, while there is one.
    outage: Option<Outage>,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    /// Number of failed probes in a row.
    count: u32,
    /// Time of the next probe.
    until: Instant,
}

impl Pacer {
    fn arrive(&mut self, id: ConnectionId, due: Instant) {
        if due <= Instant::now() {
            self.ready.push_back(id);
        } else {
            self.delayed.push(Reverse((due, id)));
        }
    }

    /// Returns the next event to send while `in_flight` events are being sent. During an outage it is one event at a
    /// time, after a pause.
    fn next(&mut self, now: Instant, in_flight: usize, concurrency: usize) -> Option<ConnectionId> {
        while let Some(Reverse((due, id))) = self.delayed.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            debug_assert!(due <= now);
            self.delayed.pop();
            self.ready.push_back(id);
        }
        let allowed = match self.outage {
            None => concurrency,
            Some(outage) if outage.until <= now => 1,
            Some(_) => 0,
        };
        if in_flight < allowed { self.ready.pop_front() } else { None }
    }

    /// Returns the time from which [`Pacer::next`] may return another event, if it only has to wait for time to pass.
    fn wakes_at(&self) -> Option<Instant> {
        let due = self.delayed.peek().map(|Reverse((due, _))| *due);
        let probe = self.outage.map(|outage| outage.until);
        match (self.ready.is_empty(), due, probe) {
            // With nothing ready, both a due event and an open probe are needed.
            (true, due, probe) => Some(due?.max(probe.unwrap_or(due?))),
            (false, _, probe) => probe,
        }
    }

    fn remove_if(&mut self, mut gone: impl FnMut(&ConnectionId) -> bool) {
        self.ready.retain(|id| !gone(id));
        self.delayed.retain(|Reverse((_, id))| !gone(id));
    }

    /// Notes the result of an attempt to deliver the event of `id`. `jitter` is 0..1.
    fn record(&mut self, id: ConnectionId, attempt: Attempt, now: Instant, jitter: f64) {
        let (attempt, is_outage) = match attempt {
            Attempt::Again { attempt, is_outage } => (attempt, is_outage),
            Attempt::Settled => return self.outage = None,
            Attempt::Dropped => return,
        };
        self.delayed.push(Reverse((now + jittered(pause_after(attempt - 1), jitter), id)));
        self.outage = match self.outage {
            _ if !is_outage => None,
            // All calls that were in flight when the outage began fail. They count as one failed probe.
            Some(outage) if outage.until > now => Some(outage),
            outage => {
                let count = outage.map_or(1, |outage| outage.count.saturating_add(1));
                Some(Outage { count, until: now + jittered(pause_after(count), jitter) })
            }
        };
    }
}

/// Returns the pause after attempt `n`, counted from 1: 1, 2, 4, … at most 60 seconds.
fn pause_after(n: u32) -> Duration {
    Duration::from_secs(1_u64.checked_shl(n.saturating_sub(1)).unwrap_or(u64::MAX)).min(PAUSE_MAX)
}

/// Returns the sum of all pauses before attempt `n`. It is the time for which an event has been tried by then, even if
/// earlier attempts were made by a node whose clock is unknown.
pub(in crate::data_plane) fn pauses_before(n: u32) -> Duration {
    (1..n.min(1_000_000)).map(pause_after).fold(Duration::ZERO, Duration::saturating_add)
}

/// Returns `pause` changed by up to ±20 %; a `jitter` of 0.5 leaves it as it is.
fn jittered(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(0.8 + 0.4 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::id::NodeId;

    const MIDDLE: f64 = 0.5;

    fn ids<const N: usize>() -> [ConnectionId; N] {
        std::array::from_fn(|_| ConnectionId::random(NodeId::random()))
    }

    fn again(attempt: u32, is_outage: bool) -> Attempt {
        Attempt::Again { attempt, is_outage }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_hour_is_over_at_about_the_66th_attempt() {
        assert_eq!(pause_after(1), seconds(1));
        assert_eq!(pause_after(6), seconds(32));
        assert_eq!(pause_after(7), seconds(60));
        assert_eq!(pause_after(u32::MAX), seconds(60));
        let last = (1..).find(|n| pauses_before(*n + 1) > seconds(3600)).unwrap();
        assert_eq!(last, 65);
    }

    #[test]
    fn no_more_are_in_flight_than_allowed() {
        let mut pacer = Pacer::default();
        let now = Instant::now();
        ids::<3>().into_iter().for_each(|id| pacer.arrive(id, now));
        assert!(pacer.next(now, 0, 2).is_some());
        assert!(pacer.next(now, 1, 2).is_some());
        assert!(pacer.next(now, 2, 2).is_none());
        assert!(pacer.next(now, 1, 2).is_some());
    }

    #[test]
    fn an_event_waits_until_it_is_due() {
        let mut pacer = Pacer::default();
        let now = Instant::now();
        let [first] = ids();
        pacer.arrive(first, now + seconds(29));
        assert_eq!(pacer.next(now + seconds(28), 0, 64), None);
        assert_eq!(pacer.wakes_at(), Some(now + seconds(29)));
        assert_eq!(pacer.next(now + seconds(29), 0, 64), Some(first));
        pacer.record(first, Attempt::Dropped, now, MIDDLE);
        assert_eq!(pacer.wakes_at(), None);
    }

    #[test]
    fn an_answer_that_is_tried_again_delays_its_event_alone() {
        let mut pacer = Pacer::default();
        let now = Instant::now();
        let [first, second] = ids();
        pacer.arrive(first, now);
        pacer.arrive(second, now);
        assert_eq!(pacer.next(now, 0, 64), Some(first));
        pacer.record(first, again(2, false), now, MIDDLE);
        assert_eq!(pacer.next(now, 0, 64), Some(second));
        assert_eq!(pacer.next(now, 0, 64), None);
        assert_eq!(pacer.wakes_at(), Some(now + seconds(1)));
        assert_eq!(pacer.next(now + seconds(1), 0, 64), Some(first));
    }

    #[test]
    fn a_backend_that_is_away_is_asked_by_one_event_after_each_pause() {
        let mut pacer = Pacer::default();
        let now = Instant::now();
        let [first, second, third] = ids();
        pacer.arrive(first, now);
        pacer.arrive(second, now);
        pacer.next(now, 0, 64);
        pacer.next(now, 1, 64);
        pacer.record(first, again(2, true), now, MIDDLE);
        pacer.record(second, again(2, true), now, MIDDLE);
        pacer.arrive(third, now);
        assert_eq!(pacer.next(now, 0, 64), None, "paused");
        assert_eq!(pacer.wakes_at(), Some(now + seconds(1)));
        let later = now + seconds(1);
        assert_eq!(pacer.next(later, 0, 64), Some(third));
        assert_eq!(pacer.next(later, 1, 64), None, "one alone");
        pacer.record(third, again(2, true), later, MIDDLE);
        assert_eq!(pacer.next(later + seconds(1), 0, 64), None, "the second pause is longer");
        let probe = pacer.next(later + seconds(2), 0, 64).unwrap();
        pacer.record(probe, Attempt::Settled, later + seconds(2), MIDDLE);
        assert!(pacer.next(later + seconds(2), 0, 64).is_some());
        assert!(pacer.next(later + seconds(2), 1, 64).is_some(), "open again");
    }
}
