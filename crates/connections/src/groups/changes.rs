use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use tidegate_core::lock::lock;
use tidegate_core::topic::Topic;

/// The groups and users whose members on this node have changed, in the order of their first change, each once. Nothing
/// is collected until a collector asks for it.
#[derive(Debug, Default)]
pub struct Changes {
    is_collecting: AtomicBool,
    inner: Mutex<Inner>,
    /// Notified when there is something to take.
    work: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Arc<Topic>>,
    queued: HashSet<Arc<Topic>>,
    /// Groups and users of which only the number of members has changed.
    counts: HashSet<Arc<Topic>>,
    /// Number of all that were ever put into the queue. None leaves the queue before those that came earlier.
    queued_ever: u64,
}

impl Changes {
    /// Begins to collect, or stops. Forgets what was collected before.
    pub fn collect(&self, collect: bool) {
        let mut inner = self.lock();
        *inner = Inner { queued_ever: inner.queued_ever, ..Inner::default() };
        // A change of members is made before `mark` reads this, and the collector walks over all members after it has
        // set this. So each change is seen by `mark` or by the walk.
        self.is_collecting.store(collect, Ordering::SeqCst);
    }

    /// Notes that this node has the first member of `topic`, or has lost the last one.
    pub(super) fn mark(&self, topic: &Arc<Topic>) {
        if self.is_collecting.load(Ordering::SeqCst) {
            self.lock().put(Arc::clone(topic));
            self.work.notify_one();
        }
    }

    /// Notes that `topic` has more members or fewer.
    pub(super) fn mark_count(&self, topic: &Arc<Topic>) {
        if self.is_collecting.load(Ordering::SeqCst) {
            let mut inner = self.lock();
            if !inner.queued.contains(topic) && !inner.counts.contains(topic) {
                inner.counts.insert(Arc::clone(topic));
            }
        }
    }

    /// Puts into the queue the groups and users of which only the number of members has changed.
    pub fn put_counts(&self) {
        let mut inner = self.lock();
        let counts = std::mem::take(&mut inner.counts);
        counts.into_iter().for_each(|topic| inner.put(topic));
    }

    /// Takes up to `most` of the oldest. Returns them, and the number of all that have left the queue so far.
    pub fn take(&self, most: usize) -> (Vec<Arc<Topic>>, u64) {
        let mut inner = self.lock();
        let count = inner.queue.len().min(most);
        let taken: Vec<Arc<Topic>> = inner.queue.drain(..count).collect();
        for topic in &taken {
            inner.queued.remove(topic);
            inner.counts.remove(topic);
        }
        let rest = u64::try_from(inner.queue.len()).unwrap_or(u64::MAX);
        (taken, inner.queued_ever - rest)
    }

    /// Returns the number of all that were ever put into the queue; `None` while nothing is collected.
    pub fn marked(&self) -> Option<u64> {
        let inner = self.lock();
        self.is_collecting.load(Ordering::SeqCst).then_some(inner.queued_ever)
    }

    /// Resolves when something was marked since the last call.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    fn put(&mut self, topic: Arc<Topic>) {
        if self.queued.insert(Arc::clone(&topic)) {
            self.queue.push_back(topic);
            self.queued_ever += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::topic::TopicName;

    fn topic(name: &str) -> Arc<Topic> {
        Arc::new(Topic { api_id: "chat".into(), name: TopicName::group(name).unwrap() })
    }

    #[test]
    fn each_is_taken_once_and_in_order() {
        let (changes, [a, b, c]) = (Changes::default(), ["a", "b", "c"].map(topic));
        changes.mark(&a);
        assert_eq!((changes.take(9), changes.marked()), ((Vec::new(), 0), None), "nobody collects");
        changes.collect(true);
        [&a, &b, &a].into_iter().for_each(|topic| changes.mark(topic));
        changes.mark_count(&a);
        changes.mark_count(&c);
        assert_eq!(changes.marked(), Some(2));
        assert_eq!(changes.take(1), (vec![Arc::clone(&a)], 1));
        assert_eq!(changes.take(9), (vec![Arc::clone(&b)], 2));
        changes.put_counts();
        assert_eq!(changes.take(9), (vec![c], 3), "the other went with its first member");
        changes.mark(&a);
        assert_eq!(changes.marked(), Some(4));
        changes.collect(true);
        assert_eq!(changes.take(9), (Vec::new(), 4), "what was before is forgotten");
        changes.mark(&b);
        assert_eq!(changes.take(9), (vec![b], 5));
    }
}
