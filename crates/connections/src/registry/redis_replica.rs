//! The changes that are not yet written to the Redis replica ([`RedisReplica`]). The heartbeat attaches the replica, and
//! so sets where and under which epoch they are written. `writer.rs` is the only task that writes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot, watch};
use tracing::{info, warn};

use super::{RegistryState, WhenUnavailable};
use crate::redis_client::{AttachedRedis, Attachment, BUCKETS, Keys};
use tidegate_core::id::ConnectionId;
use tidegate_core::lock::lock;
use tidegate_telemetry::RepeatedWarning;

/// Most records in one write.
const BATCH: usize = 256;

/// All buckets, as a set of bits.
const ALL_BUCKETS: u16 = u16::MAX;

/// Settings of a [`RedisReplica`].
#[derive(Clone, Copy, Debug)]
pub struct ReplicaSettings {
    /// Most records that are written again in a second when Redis has lost them.
    pub rebuild_per_second: u32,
    /// Most records in one write; at least 1.
    pub batch: usize,
    pub when_unavailable: WhenUnavailable,
}

impl ReplicaSettings {
    /// Returns the settings of a gateway: writes of the usual size.
    pub fn new(rebuild_per_second: u32, when_unavailable: WhenUnavailable) -> Self {
        ReplicaSettings { rebuild_per_second, batch: BATCH, when_unavailable }
    }
}

/// The entries that differ from their records, and the place where the records go.
///
/// The map of the registry is the journal: only ids are kept here. While the node is detached nothing is kept, and when
/// it is attached again the whole map is reconciled with Redis.
#[derive(Debug)]
pub struct RedisReplica {
    redis: Arc<AttachedRedis>,
    pub(super) settings: ReplicaSettings,
    inner: Mutex<Inner>,
    /// Notified when there is something for the writer.
    pub(super) work: Notify,
    /// Notified when the writer failed, so that the heartbeat looks at once.
    failed: Notify,
    /// Number of entries in each bucket.
    counts: [AtomicUsize; BUCKETS],
    state: watch::Sender<RegistryState>,
    /// The warning that Redis does not accept writes.
    degraded: RepeatedWarning,
}

/// The changes to write. The replica is attached and detached under the lock of this.
#[derive(Debug, Default)]
struct Inner {
    /// Ids in the order of their changes, each once.
    dirty: VecDeque<ConnectionId>,
    queued: HashSet<ConnectionId>,
    waiting: HashMap<ConnectionId, oneshot::Sender<()>>,
    /// Buckets to reconcile with Redis, as bits.
    unreconciled: u16,
    /// Set while the writer works on something.
    writing: bool,
    flushes: Vec<oneshot::Sender<()>>,
}

/// The next step of the writer.
#[derive(Debug)]
pub(super) enum Work {
    /// Write the present state of these entries.
    Write(Attachment, u32, Vec<ConnectionId>),
    /// Reconcile these buckets with Redis.
    Reconcile(Attachment, u32, u16),
    /// Wait for [`RedisReplica::work`].
    Nothing,
}

impl RedisReplica {
    /// Returns a replica that is not attached yet. From now on only its methods attach and detach `redis`.
    pub fn new(redis: Arc<AttachedRedis>, settings: ReplicaSettings) -> Self {
        let state = RegistryState::Starting { why: "no heartbeat has reached Redis yet".to_owned() };
        redis.metrics().set(state.name());
        RedisReplica {
            redis,
            settings,
            inner: Mutex::default(),
            work: Notify::new(),
            failed: Notify::new(),
            counts: std::array::from_fn(|_| AtomicUsize::new(0)),
            state: watch::Sender::new(state),
            degraded: RepeatedWarning::default(),
        }
    }

    /// Returns the connection to Redis, while there is one.
    pub fn redis(&self) -> &Arc<AttachedRedis> {
        &self.redis
    }

    /// Returns the names of the keys of all nodes.
    pub fn keys(&self) -> &Keys {
        self.redis.keys()
    }

    /// Returns the setting that decides about new connections while Redis is away.
    pub fn when_unavailable(&self) -> WhenUnavailable {
        self.settings.when_unavailable
    }

    /// Returns a receiver of the state, which is notified of every change.
    pub fn state(&self) -> watch::Receiver<RegistryState> {
        self.state.subscribe()
    }

    /// Attaches the replica, because a renewal was answered on this connection. The heartbeat calls this every time.
    /// Set `forgotten` if Redis may have lost what it acknowledged.
    ///
    /// If nothing has changed since the last call, this does nothing. Otherwise all buckets are reconciled: on another
    /// connection the last writes of the old one may be lost, and under another node id or epoch Redis holds other
    /// records, or older ones.
    pub fn attach(&self, attachment: Attachment, forgotten: bool) {
        {
            let mut inner = self.lock();
            if !self.redis.attach(attachment, forgotten) {
                return;
            }
            inner.unreconciled = ALL_BUCKETS;
        }
        // A degraded replica stays so until a record is accepted: Redis can renew the lease while it refuses records.
        let is_degraded = matches!(&*self.state.borrow(), RegistryState::Degraded { .. });
        if !is_degraded {
            self.set_state(&RegistryState::Rebuilding);
        }
        self.work.notify_one();
    }

    /// Detaches the replica, because the last heartbeat failed. `why` is the reason for operators.
    pub fn detach(&self, why: String) {
        self.drop_attachment();
        let is_starting = matches!(&*self.state.borrow(), RegistryState::Starting { .. });
        self.set_state(&match is_starting {
            true => RegistryState::Starting { why },
            false => RegistryState::Detached { why },
        });
    }

    /// Detaches the replica, because this node has left, or was condemned and is not registered anew yet.
    pub fn leave(&self, state: &RegistryState) {
        self.drop_attachment();
        self.set_state(state);
    }

    /// Detaches the replica, because a write failed. The heartbeat is notified, and attaches it again if it can.
    pub(super) fn fail(&self, failed: &Attachment, why: String) {
        if !self.redis.is_current(failed) {
            // The heartbeat has attached or detached the replica since, so it knows already.
            return;
        }
        self.drop_attachment();
        self.set_state(&RegistryState::Degraded { why });
        self.failed.notify_one();
    }

    /// Resolves when a write has failed.
    pub async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Forgets what was to be written, because reconciling finds it again. Tasks that wait for a record learn that
    /// there is none.
    fn drop_attachment(&self) {
        let mut inner = self.lock();
        self.redis.detach();
        inner.unreconciled = ALL_BUCKETS;
        inner.dirty = VecDeque::new();
        inner.queued = HashSet::new();
        inner.waiting = HashMap::new();
        inner.flushes = Vec::new();
    }

    /// Notes that an entry has changed or was removed.
    pub(super) fn mark(&self, id: &ConnectionId) {
        let mut inner = self.lock();
        if self.redis.is_attached() {
            inner.mark(*id);
            drop(inner);
            self.work.notify_one();
        }
    }

    /// Does the same as [`RedisReplica::mark`]. The receiver resolves when the record is acknowledged, and fails if the
    /// node is detached.
    pub(super) fn mark_and_wait(&self, id: &ConnectionId) -> oneshot::Receiver<()> {
        let (written, wait) = oneshot::channel();
        let mut inner = self.lock();
        if self.redis.is_attached() {
            inner.mark(*id);
            inner.waiting.insert(*id, written);
            drop(inner);
            self.work.notify_one();
        }
        wait
    }

    /// Returns true if a connection may begin that cannot be recorded.
    pub(super) fn accepts_unrecorded(&self) -> bool {
        let is_member = !matches!(&*self.state.borrow(), RegistryState::Starting { .. } | RegistryState::Left);
        is_member && self.settings.when_unavailable == WhenUnavailable::Accept
    }

    /// Counts an entry that was added to the map.
    pub(super) fn added(&self, id: &ConnectionId) {
        self.counts[Keys::bucket_of(id)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an entry that was removed from the map, and notes the change.
    pub(super) fn removed(&self, id: &ConnectionId) {
        self.counts[Keys::bucket_of(id)].fetch_sub(1, Ordering::Relaxed);
        self.mark(id);
    }

    /// Returns the number of records that each bucket should have; `None` while something is on its way.
    pub fn settled_counts(&self) -> Option<[usize; BUCKETS]> {
        let counts = std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed));
        let inner = self.lock();
        (self.redis.is_attached() && inner.is_idle()).then_some(counts)
    }

    /// Reconciles `buckets`, which are not as they should be.
    pub fn reconcile(&self, buckets: u16) {
        if buckets != 0 {
            self.lock().unreconciled |= buckets;
            self.work.notify_one();
        }
    }

    /// Waits until everything is written. Returns false if the node is detached meanwhile.
    pub async fn flush(&self) -> bool {
        let (done, flushed) = oneshot::channel();
        {
            let mut inner = self.lock();
            if !self.redis.is_attached() {
                return false;
            }
            inner.flushes.push(done);
        }
        self.work.notify_one();
        flushed.await.is_ok()
    }

    /// Returns the next step of the writer: first the changes that have just been made, then reconciling. Set
    /// `rebuilding` if the writer still has ids of its own to write.
    pub(super) fn next(&self, rebuilding: bool) -> Work {
        let mut inner = self.lock();
        let Some((attachment, incarnation)) = self.redis.attachment() else { return Work::Nothing };
        if !inner.dirty.is_empty() {
            let count = inner.dirty.len().min(self.settings.batch);
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
                // The caller of `flush` may have given up.
                let _ = flush.send(());
            }
        }
        Work::Nothing
    }

    /// Wakes the tasks that wait for the records of `ids`, which are written.
    pub(super) fn written(&self, ids: &[ConnectionId]) {
        let mut inner = self.lock();
        if inner.waiting.is_empty() {
            return;
        }
        for id in ids {
            // The entry may have been marked again meanwhile; the waiter still got what it waited for.
            if let Some(waiter) = inner.waiting.remove(id) {
                let _ = waiter.send(());
            }
        }
    }

    /// Notes that Redis accepted a write. Set `all_equal` if the writer knows of no other difference.
    pub(super) fn wrote(&self, all_equal: bool) {
        let all_equal = {
            let inner = self.lock();
            if !self.redis.is_attached() {
                return;
            }
            all_equal && inner.unreconciled == 0
        };
        self.set_state(&if all_equal { RegistryState::Attached } else { RegistryState::Rebuilding });
    }

    fn set_state(&self, state: &RegistryState) {
        let (name, why) = (state.name(), state.degraded().unwrap_or_default().to_owned());
        if matches!(state, RegistryState::Degraded { .. })
            && let Some(repeated) = self.degraded.due(&why)
        {
            warn!(state = name, why, repeated, "Redis cannot be used; serving clients without it and trying again");
        }
        let changed = self.state.send_if_modified(|known| {
            let changed = known != state;
            if changed {
                let other = known.name() != state.name();
                known.clone_from(state);
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
        self.redis.metrics().set(name);
        match state {
            RegistryState::Attached => {
                self.degraded.over();
                info!("Redis has all records of this node");
            }
            RegistryState::Left => info!("this node has left the cluster"),
            RegistryState::Rebuilding => info!("Redis answers; reconciling the records"),
            RegistryState::Starting { why } => {
                info!(why, "this node is not registered in Redis yet and accepts no clients");
            }
            // Logged above, and by the heartbeat, which knows where Redis is.
            RegistryState::Memory | RegistryState::Degraded { .. } | RegistryState::Detached { .. } => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    fn mark(&mut self, id: ConnectionId) {
        if self.queued.insert(id) {
            self.dirty.push_back(id);
        }
    }

    fn is_idle(&self) -> bool {
        self.dirty.is_empty() && self.unreconciled == 0 && !self.writing
    }
}
