//! The mirror in Redis, seen from this node: what is not yet written ([`Mirror`]), and the link to the beat, which says
//! where and under which epoch it is written. `writer.rs` is the one task that writes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot, watch};
use tracing::{info, warn};

use super::{RegistryState, WhenUnavailable};
use crate::id::{ConnectionId, NodeId};
use crate::redis_client::{BUCKETS, Keys, RedisConnection};
use crate::telemetry::{RegistryMetrics, RepeatedWarning};

/// Most records of one write.
const BATCH: usize = 256;

/// All buckets, as a set of bits.
const ALL_BUCKETS: u16 = u16::MAX;

/// Which entries differ from their records, and where the records go.
///
/// The map of the registry is the journal: what is here are ids alone. While the node is detached nothing is kept, and
/// when it is attached again the whole map is compared with Redis.
#[derive(Debug)]
pub struct Mirror {
    pub(super) keys: Keys,
    pub(super) rebuild_per_second: u32,
    /// Most records of one write.
    pub(super) batch: usize,
    when_unavailable: WhenUnavailable,
    inner: Mutex<Inner>,
    /// There is something for the writer.
    pub(super) work: Notify,
    /// The writer failed: the beat looks at once.
    trouble: Notify,
    /// Entries of each bucket.
    counts: [AtomicUsize; BUCKETS],
    state: watch::Sender<RegistryState>,
    /// Redis does not take what is written.
    degraded: RepeatedWarning,
    metrics: RegistryMetrics,
}

#[derive(Debug, Default)]
struct Inner {
    attachment: Option<Attachment>,
    /// Counts the times that Redis may have forgotten what it acknowledged.
    incarnation: u32,
    /// Ids in the order of their changes, each once.
    dirty: VecDeque<ConnectionId>,
    queued: HashSet<ConnectionId>,
    waiting: HashMap<ConnectionId, oneshot::Sender<()>>,
    /// Buckets that are to be compared with Redis.
    unreconciled: u16,
    /// The writer has taken something and not yet come back.
    writing: bool,
    flushes: Vec<oneshot::Sender<()>>,
}

/// Where records go at the moment.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub connection: RedisConnection,
    pub node: NodeId,
    pub epoch: u64,
    /// Counts the connections of this process, so that two of them are told apart.
    pub serial: u64,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum Work {
    /// Write the present state of these.
    Write(Attachment, u32, Vec<ConnectionId>),
    /// Compare these buckets with Redis.
    Reconcile(Attachment, u32, u16),
    /// Wait for [`Mirror::work`].
    Nothing,
}

impl Mirror {
    /// One that is not attached yet.
    pub fn new(
        keys: Keys,
        rebuild_per_second: u32,
        when_unavailable: WhenUnavailable,
        metrics: RegistryMetrics,
    ) -> Self {
        let state = RegistryState::Starting { why: "Redis was not asked yet".to_owned() };
        metrics.set(state.name());
        Mirror {
            keys,
            rebuild_per_second,
            batch: BATCH,
            when_unavailable,
            inner: Mutex::default(),
            work: Notify::new(),
            trouble: Notify::new(),
            counts: std::array::from_fn(|_| AtomicUsize::new(0)),
            state: watch::Sender::new(state),
            degraded: RepeatedWarning::default(),
            metrics,
        }
    }

    /// Writes so many records at once instead of 256, so that little shows what happens between batches.
    pub fn set_batch(&mut self, batch: usize) {
        self.batch = batch.max(1);
    }

    /// The keys of all nodes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What is counted of Redis.
    pub fn metrics(&self) -> &RegistryMetrics {
        &self.metrics
    }

    /// What new connections meet while Redis is away.
    pub fn when_unavailable(&self) -> WhenUnavailable {
        self.when_unavailable
    }

    /// The state, and every change of it.
    pub fn state(&self) -> watch::Receiver<RegistryState> {
        self.state.subscribe()
    }

    /// Where records go, and how often Redis may have forgotten them so far.
    pub(super) fn attachment(&self) -> Option<(Attachment, u32)> {
        let inner = self.lock();
        inner.attachment.clone().map(|attachment| (attachment, inner.incarnation))
    }

    /// How often Redis may have forgotten what it acknowledged so far.
    pub(super) fn incarnation(&self) -> u32 {
        self.lock().incarnation
    }

    /// The connection to Redis, while there is one.
    pub fn connection(&self) -> Option<RedisConnection> {
        self.lock().attachment.as_ref().map(|attachment| attachment.connection.clone())
    }

    /// The last renewal was answered on this connection. With `forgotten` Redis may have lost what it acknowledged.
    /// Whenever that is so, or something broke before, the whole map is compared with Redis.
    pub fn attach(&self, attachment: Attachment, forgotten: bool) {
        {
            let mut inner = self.lock();
            if inner.is_attached_as(&attachment) && !forgotten {
                return;
            }
            inner.incarnation = inner.incarnation.wrapping_add(u32::from(forgotten));
            inner.unreconciled = ALL_BUCKETS;
            inner.attachment = Some(attachment);
        }
        // Degraded stays until a record was taken: the lease can be renewed while records are refused.
        let is_degraded = matches!(&*self.state.borrow(), RegistryState::Degraded { .. });
        if !is_degraded {
            self.set_state(RegistryState::Rebuilding);
        }
        self.work.notify_one();
    }

    /// The last renewal failed.
    pub fn detach(&self, why: String) {
        self.let_go();
        let is_starting = matches!(&*self.state.borrow(), RegistryState::Starting { .. });
        self.set_state(match is_starting {
            true => RegistryState::Starting { why },
            false => RegistryState::Detached { why },
        });
    }

    /// This node takes part no longer: it has left, or it was condemned and is not registered anew yet.
    pub fn leave(&self, state: RegistryState) {
        self.let_go();
        self.set_state(state);
    }

    /// A write failed. The beat is told, and attaches again if it can.
    pub(super) fn fail(&self, failed: &Attachment, why: String) {
        if !self.is_current(failed) {
            // The beat knows already.
            return;
        }
        self.let_go();
        self.set_state(RegistryState::Degraded { why });
        self.trouble.notify_one();
    }

    /// Resolves when a write has failed.
    pub async fn trouble(&self) {
        self.trouble.notified().await;
    }

    /// Forgets what was to be written: the comparison finds it again. Who waits for a record learns that there is none.
    fn let_go(&self) {
        let mut inner = self.lock();
        inner.attachment = None;
        inner.unreconciled = ALL_BUCKETS;
        inner.dirty = VecDeque::new();
        inner.queued = HashSet::new();
        inner.waiting = HashMap::new();
        inner.flushes = Vec::new();
    }

    /// An entry has changed, or gone.
    pub(super) fn mark(&self, id: &ConnectionId) {
        let mut inner = self.lock();
        if inner.attachment.is_some() {
            inner.mark(*id);
            drop(inner);
            self.work.notify_one();
        }
    }

    /// [`Mirror::mark`], and a way to wait until the record is acknowledged. The wait fails if the node is detached.
    pub(super) fn mark_and_wait(&self, id: &ConnectionId) -> oneshot::Receiver<()> {
        let (written, wait) = oneshot::channel();
        let mut inner = self.lock();
        if inner.attachment.is_some() {
            inner.mark(*id);
            inner.waiting.insert(*id, written);
            drop(inner);
            self.work.notify_one();
        }
        wait
    }

    /// Whether records go anywhere at the moment.
    pub(super) fn is_attached(&self) -> bool {
        self.lock().attachment.is_some()
    }

    /// Whether a connection may begin that could not be recorded.
    pub(super) fn takes_unrecorded(&self) -> bool {
        let is_member = !matches!(&*self.state.borrow(), RegistryState::Starting { .. } | RegistryState::Left);
        is_member && self.when_unavailable == WhenUnavailable::Accept
    }

    /// An entry came into the map.
    pub(super) fn added(&self, id: &ConnectionId) {
        self.counts[Keys::bucket_of(id)].fetch_add(1, Ordering::Relaxed);
    }

    /// An entry left the map.
    pub(super) fn removed(&self, id: &ConnectionId) {
        self.counts[Keys::bucket_of(id)].fetch_sub(1, Ordering::Relaxed);
        self.mark(id);
    }

    /// How many records each bucket should have; `None` while something is on its way.
    pub fn settled_counts(&self) -> Option<[usize; BUCKETS]> {
        let counts = std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed));
        self.lock().is_idle().then_some(counts)
    }

    /// These buckets are not what they should be.
    pub fn reconcile(&self, buckets: u16) {
        if buckets != 0 {
            self.lock().unreconciled |= buckets;
            self.work.notify_one();
        }
    }

    /// Waits until everything is written. `false` if the node was detached meanwhile.
    pub async fn flush(&self) -> bool {
        let (done, flushed) = oneshot::channel();
        {
            let mut inner = self.lock();
            if inner.attachment.is_none() {
                return false;
            }
            inner.flushes.push(done);
        }
        self.work.notify_one();
        flushed.await.is_ok()
    }

    /// The next thing to do: first what has changed just now, then comparisons. `rebuilding` says that the writer has more
    /// of its own.
    pub(super) fn next(&self, rebuilding: bool) -> Work {
        let mut inner = self.lock();
        let Some(attachment) = inner.attachment.clone() else { return Work::Nothing };
        let incarnation = inner.incarnation;
        if !inner.dirty.is_empty() {
            let count = inner.dirty.len().min(self.batch);
            let ids: Vec<ConnectionId> = inner.dirty.drain(..count).collect();
            for id in &ids {
                inner.queued.remove(id);
            }
            inner.writing = true;
            return Work::Write(attachment, incarnation, ids);
        }
        if inner.unreconciled != 0 && !rebuilding {
            inner.writing = true;
            return Work::Reconcile(attachment, incarnation, std::mem::take(&mut inner.unreconciled));
        }
        if !rebuilding {
            inner.writing = false;
            for flush in std::mem::take(&mut inner.flushes) {
                // Who flushed may have given up.
                let _ = flush.send(());
            }
        }
        Work::Nothing
    }

    /// These are written: whoever waits for them goes on.
    pub(super) fn written(&self, ids: &[ConnectionId]) {
        let mut inner = self.lock();
        if inner.waiting.is_empty() {
            return;
        }
        for id in ids {
            // Marked again meanwhile, the waiter still got what it waited for.
            if let Some(waiter) = inner.waiting.remove(id) {
                let _ = waiter.send(());
            }
        }
    }

    /// Whether this is still where records go.
    pub(super) fn is_current(&self, attachment: &Attachment) -> bool {
        self.lock().is_attached_as(attachment)
    }

    /// Redis took what it was given, and has everything if `all_equal`.
    pub(super) fn wrote(&self, all_equal: bool) {
        let all_equal = {
            let inner = self.lock();
            if inner.attachment.is_none() {
                return;
            }
            all_equal && inner.unreconciled == 0
        };
        self.set_state(if all_equal { RegistryState::Attached } else { RegistryState::Rebuilding });
    }

    fn set_state(&self, state: RegistryState) {
        let (name, why) = (state.name(), state.degraded().unwrap_or_default().to_owned());
        if matches!(state, RegistryState::Degraded { .. })
            && let Some(repeated) = self.degraded.due(&why)
        {
            warn!(state = name, why, repeated, "Redis cannot be used; connections are served on");
        }
        let changed = self.state.send_if_modified(|known| {
            let changed = *known != state;
            if changed {
                let other = known.name() != state.name();
                *known = state;
                if !other {
                    // Another reason of the same state; probes see it.
                    return false;
                }
            }
            changed
        });
        if !changed {
            return;
        }
        self.metrics.set(name);
        match name {
            "attached" => {
                self.degraded.over();
                info!("Redis holds what this node holds");
            }
            "left" => info!("this node has left"),
            "rebuilding" => info!("Redis is there; records are compared and written"),
            "starting" => info!(why, "this node is not registered in Redis yet"),
            // Said above, and by the beat, which knows where Redis is.
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn mark(&mut self, id: ConnectionId) {
        if self.queued.insert(id) {
            self.dirty.push_back(id);
        }
    }

    fn is_attached_as(&self, other: &Attachment) -> bool {
        let same =
            |known: &Attachment| (known.node, known.epoch, known.serial) == (other.node, other.epoch, other.serial);
        self.attachment.as_ref().is_some_and(same)
    }

    fn is_idle(&self) -> bool {
        self.attachment.is_some() && self.dirty.is_empty() && self.unreconciled == 0 && !self.writing
    }
}
