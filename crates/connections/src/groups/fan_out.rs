use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, timeout_at};

use super::GroupMember;
use crate::session::{DataFrame, PostRefused, Receipts};
use tidegate_core::clock::Timestamp;

/// The result of sending one message to many connections of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushCounts {
    /// Frames that were written as a whole.
    pub delivered: usize,
    /// Connections that ended before, or did not exist.
    pub gone: usize,
    /// Connections whose send buffer was full; nothing was queued for them.
    pub full: usize,
    /// Frames that were queued, and neither written nor given up by the deadline.
    pub pending: usize,
}

/// A message on its way to many connections of this node. All of them share its bytes.
#[derive(Debug)]
pub struct FanOut {
    tally: Arc<Tally>,
    queued: usize,
    refused: PushCounts,
}

/// Counters of the frames that sessions are done with.
#[derive(Debug, Default)]
struct Tally {
    delivered: AtomicUsize,
    gone: AtomicUsize,
    /// Number of frames whose outcome is known, of `expected`.
    settled: AtomicUsize,
    /// Number of frames that were queued; `usize::MAX` until all are, so that none is taken for the last before.
    expected: AtomicUsize,
    waiting: AtomicWaker,
}

impl FanOut {
    /// Queues `frame` for each member. Two calls queue their frames for a member in the order of the calls. Never
    /// waits.
    pub fn queue(members: impl IntoIterator<Item = GroupMember>, frame: &DataFrame, now: Timestamp) -> Self {
        let tally = Arc::new(Tally { expected: AtomicUsize::new(usize::MAX), ..Tally::default() });
        let receipts: Arc<dyn Receipts> = Arc::clone(&tally) as Arc<dyn Receipts>;
        let (mut queued, mut refused) = (0, PushCounts::default());
        for GroupMember { outbox, .. } in members {
            match outbox.post_for(frame.clone(), now, Arc::clone(&receipts), 0) {
                Ok(()) => queued += 1,
                Err(PostRefused::Gone) => refused.gone += 1,
                Err(PostRefused::Full) => refused.full += 1,
            }
        }
        tally.expected.store(queued, Ordering::SeqCst);
        FanOut { tally, queued, refused }
    }

    /// Waits until every outcome is known, but not beyond `deadline`, and returns the counts.
    pub async fn settled(self, deadline: Instant) -> PushCounts {
        let Tally { settled, waiting, .. } = &*self.tally;
        let all_known = poll_fn(|cx| {
            waiting.register(cx.waker());
            if settled.load(Ordering::SeqCst) >= self.queued { Poll::Ready(()) } else { Poll::Pending }
        });
        // The frames that are not done by then are pending.
        let _ = timeout_at(deadline, all_known).await;
        let delivered = self.tally.delivered.load(Ordering::Acquire);
        let gone = self.tally.gone.load(Ordering::Acquire);
        PushCounts {
            delivered,
            gone: gone + self.refused.gone,
            full: self.refused.full,
            pending: self.queued.saturating_sub(delivered + gone),
        }
    }
}

impl Receipts for Tally {
    fn settle(&self, _: u64, written: bool) {
        let count = if written { &self.delivered } else { &self.gone };
        count.fetch_add(1, Ordering::Relaxed);
        // Sequentially consistent with `FanOut`: either this sees the expected number, or `FanOut` sees this frame.
        if self.settled.fetch_add(1, Ordering::SeqCst) + 1 >= self.expected.load(Ordering::SeqCst) {
            self.waiting.wake();
        }
    }
}

impl PushCounts {
    /// Adds the counts of `other`.
    pub fn add(&mut self, other: PushCounts) {
        self.delivered += other.delivered;
        self.gone += other.gone;
        self.full += other.full;
        self.pending += other.pending;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::{Closing, Outbox};
    use tidegate_core::id::{ConnectionId, NodeId};

    fn member(limit_bytes: usize) -> GroupMember {
        let outbox = Arc::new(Outbox::new(limit_bytes, Timestamp(0)));
        GroupMember { id: ConnectionId::random(NodeId::random()), outbox }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_written_in_time_is_pending_and_who_is_closed_is_gone() {
        let (slow, closed, full) = (member(1024), member(1024), member(1));
        closed.outbox.close(Closing::drained());
        full.outbox.reply(DataFrame::text("first".to_owned()));
        let fan_out = FanOut::queue([slow.clone(), closed, full], &DataFrame::text("hi".to_owned()), Timestamp(1));
        let counts = fan_out.settled(Instant::now() + Duration::from_secs(2)).await;
        assert_eq!(counts, PushCounts { delivered: 0, gone: 1, full: 1, pending: 1 });
        assert!(slow.outbox.buffered_bytes() > 0, "it gets the message all the same, if it ever can");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_when_nobody_is_there() {
        let started = Instant::now();
        let fan_out = FanOut::queue([], &DataFrame::text("hi".to_owned()), Timestamp(1));
        assert_eq!(fan_out.settled(started + Duration::from_secs(2)).await, PushCounts::default());
        assert_eq!(Instant::now(), started);
    }

    #[test]
    fn the_last_to_be_done_wakes_whoever_waits() {
        let tally = Tally { expected: AtomicUsize::new(2), ..Tally::default() };
        let (waker, woken) = futures_test_waker();
        tally.waiting.register(&waker);
        tally.settle(0, true);
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        tally.settle(0, false);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!((tally.delivered.into_inner(), tally.gone.into_inner()), (1, 1));
    }

    fn futures_test_waker() -> (std::task::Waker, Arc<AtomicUsize>) {
        struct Counting(Arc<AtomicUsize>);
        impl std::task::Wake for Counting {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let woken = Arc::<AtomicUsize>::default();
        (Arc::new(Counting(Arc::clone(&woken))).into(), woken)
    }
}
