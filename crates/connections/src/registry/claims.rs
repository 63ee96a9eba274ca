//! Records of dead nodes that this node has claimed. It sends their `$disconnect` events as long as the claim is fresh.
//!
//! The reaper claims, renews and gives back whole buckets; the flow of a `$disconnect` takes up, retries and settles
//! single records. The outcomes are kept until Redis has noted them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::EndedConnection;
use super::record::{OwnTexts, Record, RecordState, RecordText, encode};
use crate::session::{Cause, Closing};
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::lock::lock;
use tidegate_core::request_context::Connection;

/// A bucket of a dead node.
pub type Bucket = (NodeId, usize);

/// The queue of claimed records whose events this node sends, in the order in which it may send them. It never holds
/// more records than are claimed.
pub type ClaimedEvents = mpsc::UnboundedReceiver<ClaimedEvent>;

/// A record whose event this node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedEvent {
    pub id: ConnectionId,
    /// True if its `$connect` may still be running at a backend: wait for as long as that may take.
    pub connecting: bool,
}

/// A record as it goes back to Redis: the connection id, and the bytes.
pub type EncodedRecord = (String, Vec<u8>);

/// Everything that this node has claimed.
#[derive(Debug)]
pub struct Claims {
    inner: Mutex<Inner>,
    queue: mpsc::UnboundedSender<ClaimedEvent>,
    /// Notified when there is something for Redis to note.
    outcome: Notify,
    events: Mutex<Option<ClaimedEvents>>,
}

#[derive(Debug, Default)]
struct Inner {
    claims: HashMap<Bucket, Claim>,
    records: HashMap<ConnectionId, HeldRecord>,
}

/// The claim of one bucket.
#[derive(Debug)]
struct Claim {
    /// Time from which nothing is sent until the claim is renewed.
    fresh_until: Instant,
    /// Run id of the Redis server that granted the claim.
    run_id: String,
    /// Events that are over and whose records are still in Redis.
    done: Vec<ConnectionId>,
    /// Events that failed since Redis last noted their attempt.
    failed: Vec<ConnectionId>,
    /// Records in Redis that must still be read. Those that are held already come first.
    unread: VecDeque<ConnectionId>,
}

#[derive(Debug)]
struct HeldRecord {
    bucket: Bucket,
    ended: EndedConnection,
    connecting: bool,
    /// True if the record waits for its turn, or its event is being sent.
    queued: bool,
}

/// The state of a claim, for the reaper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimView {
    pub bucket: Bucket,
    pub is_fresh: bool,
    pub run_id: String,
    /// Number of records whose event is not over.
    pub unfinished: usize,
}

/// The outcomes of a bucket that Redis has to note.
#[derive(Debug, Default)]
pub struct EventOutcomes {
    pub done: Vec<ConnectionId>,
    pub failed: Vec<EncodedRecord>,
    failed_count: usize,
    /// True if nothing else of the bucket is held.
    pub is_last: bool,
}

impl EventOutcomes {
    /// Returns true if there is nothing to note.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.failed_count == 0
    }
}

impl Claims {
    pub(super) fn new() -> Self {
        let (queue, events) = mpsc::unbounded_channel();
        Claims { inner: Mutex::default(), queue, outcome: Notify::new(), events: Mutex::new(Some(events)) }
    }

    /// Returns the queue of events to send, to the one task that sends them. Later calls return `None`.
    pub fn events(&self) -> Option<ClaimedEvents> {
        lock(&self.events).take()
    }

    /// Returns the number of records that are held.
    pub fn len(&self) -> usize {
        self.lock().records.len()
    }

    /// Returns the number of records in all claimed buckets, read or not.
    pub fn claimed(&self) -> usize {
        let inner = self.lock();
        inner.records.len() + inner.claims.values().map(|claim| claim.unread.len()).sum::<usize>()
    }

    /// Returns true if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that `bucket` was claimed and contains the records `ids`. They are read in pages ([`Claims::unread`]). A
    /// record of the bucket that was held before stays if Redis still has it, and is read again. Events that are over
    /// stay over.
    pub fn take(&self, bucket: Bucket, run_id: &str, fresh_until: Instant, ids: Vec<ConnectionId>) {
        let mut inner = self.lock();
        let done = inner.claims.remove(&bucket).map(|claim| claim.done).unwrap_or_default();
        let mut there: HashSet<ConnectionId> = ids.into_iter().collect();
        done.iter().for_each(|id| _ = there.remove(id));
        inner.records.retain(|id, held| held.bucket != bucket || there.contains(id));
        let (held, new): (Vec<_>, Vec<_>) = there.into_iter().partition(|id| inner.records.contains_key(id));
        let unread = held.into_iter().chain(new).collect();
        let claim = Claim { fresh_until, run_id: run_id.to_owned(), done, failed: Vec::new(), unread };
        inner.claims.insert(bucket, claim);
        self.queue(&mut inner, bucket);
    }

    /// Returns the next records of a bucket to read: at most `max`, and at most `room` that are not held yet.
    pub fn unread(&self, bucket: Bucket, max: usize, mut room: usize) -> Vec<ConnectionId> {
        let inner = self.lock();
        let Some(claim) = inner.claims.get(&bucket) else { return Vec::new() };
        let mut has_room = |id: &&ConnectionId| {
            let is_held = inner.records.contains_key(*id);
            let has_room = is_held || room > 0;
            room -= usize::from(has_room && !is_held);
            has_room
        };
        claim.unread.iter().take(max).take_while(|id| has_room(id)).copied().collect()
    }

    /// Notes that the next `count` records of a bucket were read. `records` are those of them that exist and can be
    /// used. Returns the number of new ones.
    pub fn add(&self, bucket: Bucket, count: usize, records: Vec<Record>) -> usize {
        let mut inner = self.lock();
        let Inner { claims, records: held } = &mut *inner;
        let Some(claim) = claims.get_mut(&bucket) else { return 0 };
        let read = claim.unread.drain(..count.min(claim.unread.len()));
        let mut before: HashMap<ConnectionId, HeldRecord> = read.filter_map(|id| held.remove_entry(&id)).collect();
        let mut new = 0;
        for Record { connection, state } in
            records.into_iter().filter(|record| !claim.done.contains(&record.connection.id))
        {
            let id = connection.id;
            let connecting = state == RecordState::Connecting;
            let (closing, attempt) = match state {
                RecordState::Connecting | RecordState::Open => (Closing::lost(), 1),
                RecordState::Ended { code, reason, attempt } => (Closing { code, reason, cause: Cause::Lost }, attempt),
            };
            let before = before.remove(&id);
            new += usize::from(before.is_none());
            let attempt = before.as_ref().map_or(attempt, |held| held.ended.attempt.max(attempt));
            let queued = before.is_some_and(|held| held.queued);
            let ended = EndedConnection { connection, closing, attempt, since: Instant::now() };
            held.insert(id, HeldRecord { bucket, ended, connecting, queued });
        }
        self.queue(&mut inner, bucket);
        new
    }

    /// Renews a claim until `fresh_until`. Events that had to wait are queued again.
    pub fn keep(&self, bucket: Bucket, run_id: &str, fresh_until: Instant) {
        let mut inner = self.lock();
        if let Some(claim) = inner.claims.get_mut(&bucket) {
            claim.fresh_until = fresh_until;
            run_id.clone_into(&mut claim.run_id);
            self.queue(&mut inner, bucket);
        }
    }

    /// Forgets a bucket, because another node has it or nothing of it is left.
    pub fn forget(&self, bucket: Bucket) {
        let mut inner = self.lock();
        inner.claims.remove(&bucket);
        inner.records.retain(|_, held| held.bucket != bucket);
    }

    /// Returns the state of all claims, in the order of their buckets.
    pub fn views(&self) -> Vec<ClaimView> {
        let (inner, now) = (self.lock(), Instant::now());
        let mut unfinished: HashMap<Bucket, usize> = HashMap::new();
        for held in inner.records.values() {
            *unfinished.entry(held.bucket).or_default() += 1;
        }
        let view = |(bucket, claim): (&Bucket, &Claim)| ClaimView {
            bucket: *bucket,
            is_fresh: now < claim.fresh_until,
            run_id: claim.run_id.clone(),
            unfinished: unfinished.get(bucket).copied().unwrap_or_default(),
        };
        let mut views: Vec<ClaimView> = inner.claims.iter().map(view).collect();
        views.sort_by_key(|view| view.bucket);
        views
    }

    /// Resolves when there may be something for Redis to note.
    pub async fn outcome(&self) {
        self.outcome.notified().await;
    }

    /// Returns the records of a bucket whose event is not over, as they go back to Redis.
    pub fn unfinished(&self, bucket: Bucket) -> Vec<EncodedRecord> {
        self.lock().records.values().filter(|held| held.bucket == bucket).map(HeldRecord::encode).collect()
    }

    /// Returns at most `max` events that are over, and at most `max` that failed, which Redis does not know yet.
    pub fn outcomes(&self, bucket: Bucket, max: usize) -> EventOutcomes {
        let inner = self.lock();
        let Some(claim) = inner.claims.get(&bucket) else { return EventOutcomes::default() };
        let failed_count = claim.failed.len().min(max);
        let failed = claim
            .failed
            .iter()
            .take(failed_count)
            .filter_map(|id| inner.records.get(id))
            .map(HeldRecord::encode)
            .collect();
        let is_last = claim.unread.is_empty()
            && claim.done.len() <= max
            && inner.records.values().all(|held| held.bucket != bucket);
        EventOutcomes { done: claim.done.iter().take(max).copied().collect(), failed, failed_count, is_last }
    }

    /// Forgets `outcomes`, which were returned last, because Redis has noted them.
    pub fn noted(&self, bucket: Bucket, outcomes: &EventOutcomes) {
        if let Some(claim) = self.lock().claims.get_mut(&bucket) {
            // Both lists grow only at their ends, so the outcomes are still at their beginnings; or the lists were made
            // anew.
            claim.done.drain(..outcomes.done.len().min(claim.done.len()));
            claim.failed.drain(..outcomes.failed_count.min(claim.failed.len()));
        }
    }

    /// Returns the connections of all records that are held.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().records.values().map(|held| Arc::clone(&held.ended.connection)).collect()
    }

    /// Returns the record of `id`, if it is held.
    pub(super) fn get(&self, id: &ConnectionId) -> Option<EndedConnection> {
        self.lock().records.get(id).map(|held| held.ended.clone())
    }

    /// Returns the record of `id`, if its event may be sent now. Otherwise it leaves the queue until its claim is
    /// renewed.
    pub(super) fn begin_attempt(&self, id: &ConnectionId) -> Option<EndedConnection> {
        let mut inner = self.lock();
        let Inner { claims, records } = &mut *inner;
        let held = records.get_mut(id)?;
        let is_fresh = claims.get(&held.bucket).is_some_and(|claim| Instant::now() < claim.fresh_until);
        held.queued = is_fresh;
        is_fresh.then(|| held.ended.clone())
    }

    /// Notes that an attempt failed. Returns the number of the next one.
    pub(super) fn retry(&self, id: &ConnectionId) -> Option<u32> {
        let mut inner = self.lock();
        let Inner { claims, records } = &mut *inner;
        let held = records.get_mut(id)?;
        held.ended.attempt = held.ended.attempt.saturating_add(1);
        held.connecting = false;
        let claim = claims.get_mut(&held.bucket)?;
        if !claim.failed.contains(id) {
            claim.failed.push(*id);
        }
        self.outcome.notify_one();
        Some(held.ended.attempt)
    }

    /// Notes that the event is over. Returns false if no record of `id` is held.
    pub(super) fn settle(&self, id: &ConnectionId) -> bool {
        let mut inner = self.lock();
        let Some(held) = inner.records.remove(id) else { return false };
        if let Some(claim) = inner.claims.get_mut(&held.bucket) {
            claim.done.push(*id);
        }
        self.outcome.notify_one();
        true
    }

    fn queue(&self, inner: &mut Inner, bucket: Bucket) {
        for (id, held) in &mut inner.records {
            if held.bucket == bucket && !std::mem::replace(&mut held.queued, true) {
                // The receiver is gone only when the process ends.
                let _ = self.queue.send(ClaimedEvent { id: *id, connecting: held.connecting });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl HeldRecord {
    /// Encodes the record as it goes back. The texts that its node's records shared may be gone, so it contains them.
    fn encode(&self) -> EncodedRecord {
        let EndedConnection { connection, closing, attempt, .. } = &self.ended;
        let state = match self.connecting {
            true => RecordState::Connecting,
            false => RecordState::Ended { code: closing.code, reason: Arc::clone(&closing.reason), attempt: *attempt },
        };
        let user_agent = connection.user_agent.as_deref().map(|text| RecordText::Inline(text.into()));
        let client_cert =
            connection.client_cert.as_deref().map(|cert| RecordText::Inline(cert.client_cert_pem.as_str().into()));
        (connection.id.to_string(), encode(connection, &state, OwnTexts { user_agent, client_cert }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const FRESH: Duration = Duration::from_secs(5);

    fn record(node: NodeId, state: RecordState) -> Record {
        let connection =
            Connection { user_agent: Some("Mozilla/5.0".into()), ..Connection::sample(ConnectionId::random(node)) };
        Record { connection: Arc::new(connection), state }
    }

    fn take(claims: &Claims, bucket: Bucket, until: Instant, records: Vec<Record>) {
        claims.take(bucket, "run", until, records.iter().map(|record| record.connection.id).collect());
        claims.add(bucket, records.len(), records);
    }

    fn queued(events: &mut ClaimedEvents) -> Vec<ConnectionId> {
        std::iter::from_fn(|| events.try_recv().ok().map(|event| event.id)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_is_not_fresh_sends_nothing_until_it_is_renewed() {
        let claims = Claims::new();
        let mut events = claims.events().unwrap();
        let node = NodeId::random();
        let record = record(node, RecordState::Open);
        let id = record.connection.id;
        take(&claims, (node, 3), Instant::now() + FRESH, vec![record]);
        assert_eq!(queued(&mut events), [id]);
        assert_eq!(claims.begin_attempt(&id).unwrap().closing, Closing::lost());
        advance(FRESH).await;
        assert!(claims.begin_attempt(&id).is_none());
        claims.keep((node, 3), "run", Instant::now() + FRESH);
        assert_eq!(queued(&mut events), [id], "once");
        claims.keep((node, 3), "run", Instant::now() + FRESH);
        assert_eq!(queued(&mut events), []);
        assert!(claims.begin_attempt(&id).is_some());
    }

    #[tokio::test]
    async fn what_became_of_events_is_kept_until_redis_has_noted_it() {
        let claims = Claims::new();
        let node = NodeId::random();
        let bucket = (node, 0);
        let ended = RecordState::Ended { code: 4001, reason: "kicked".into(), attempt: 3 };
        let (first, second) = (record(node, ended), record(node, RecordState::Connecting));
        let ids = [first.connection.id, second.connection.id];
        take(&claims, bucket, Instant::now() + FRESH, vec![first, second]);
        assert_eq!(claims.begin_attempt(&ids[0]).map(|ended| (ended.attempt, ended.closing.code)), Some((3, 4001)));
        assert_eq!(claims.retry(&ids[0]), Some(4));
        assert!(claims.settle(&ids[1]));
        assert!(!claims.settle(&ids[1]));
        let outcomes = claims.outcomes(bucket, 10);
        assert_eq!((&*outcomes.done, outcomes.failed.len(), outcomes.is_last), (&ids[1..], 1, false));
        claims.noted(bucket, &outcomes);
        let outcomes = claims.outcomes(bucket, 10);
        assert!(outcomes.done.is_empty() && outcomes.failed.is_empty());
        assert!(claims.settle(&ids[0]));
        assert!(claims.outcomes(bucket, 10).is_last);
    }

    #[tokio::test]
    async fn an_event_that_is_over_stays_over_when_its_record_is_read_again() {
        let claims = Claims::new();
        let mut events = claims.events().unwrap();
        let node = NodeId::random();
        let record = record(node, RecordState::Open);
        let id = record.connection.id;
        let until = Instant::now() + FRESH;
        take(&claims, (node, 0), until, vec![record.clone()]);
        claims.settle(&id);
        take(&claims, (node, 0), until, vec![record]);
        assert_eq!(queued(&mut events), [id]);
        assert!(claims.is_empty());
        assert_eq!(claims.outcomes((node, 0), 10).done, [id]);
        claims.forget((node, 0));
        assert!(claims.views().is_empty());
    }

    #[tokio::test]
    async fn a_bucket_is_read_a_page_at_a_time_as_there_is_room() {
        let claims = Claims::new();
        let node = NodeId::random();
        let bucket = (node, 0);
        let until = Instant::now() + FRESH;
        let records: HashMap<ConnectionId, Record> =
            std::iter::repeat_with(|| record(node, RecordState::Open)).take(5).map(|r| (r.connection.id, r)).collect();
        claims.take(bucket, "run", until, records.keys().copied().collect());
        assert_eq!((claims.len(), claims.claimed()), (0, 5));
        assert!(!claims.outcomes(bucket, 10).is_last, "nothing of it is read yet");
        let read = |ids: &[ConnectionId]| ids.iter().filter_map(|id| records.get(id).cloned()).collect::<Vec<_>>();
        let first = claims.unread(bucket, 10, 2);
        assert_eq!(first.len(), 2);
        assert_eq!(claims.add(bucket, 2, read(&first)), 2);
        assert_eq!(claims.unread(bucket, 10, 0), []);
        assert!(claims.settle(&first[0]));
        // The bucket is claimed anew: held records are read first, even without room, and finished ones are not read.
        claims.take(bucket, "run", until, records.keys().copied().collect());
        assert_eq!(claims.unread(bucket, 10, 0), [first[1]]);
        assert_eq!(claims.add(bucket, 1, read(&first[1..])), 0);
        let rest = claims.unread(bucket, 10, 10);
        assert_eq!(rest.len(), 3);
        // One of the records was removed from Redis meanwhile.
        assert_eq!(claims.add(bucket, 3, read(&rest[1..])), 2);
        assert_eq!((claims.len(), claims.claimed()), (3, 3));
        for id in [first[1], rest[1], rest[2]] {
            assert!(claims.settle(&id));
        }
        assert!(claims.outcomes(bucket, 10).is_last);
    }
}
