//! Quotas that all nodes count together.
//!
//! The count is in Redis. A message waits for one round trip, which it shares with all other messages that wait on this
//! node: each node sends one pipeline at a time, however many messages come. While more than [`LEFT`] uses of a quota
//! remain, a node reserves [`RESERVE`] of them and spends these without a round trip. Near the end of a quota nothing
//! is reserved, so the last use is exact on every node.
//!
//! Unused reservations are given back after [`RESERVE_LIFE`] and when the node leaves. If a node dies, its reservations
//! are lost: at most [`RESERVE`], while more than [`LEFT`] remained.
//!
//! While Redis is away, each node counts on from the last count that it knows, so a single node never exceeds the
//! quota. When Redis is back, the uses of the meantime are added. If Redis has lost the count, the first node that
//! sends a request restores it. If an answer does not come in time, the uses are accepted as far as the known count
//! allows, because a slow Redis still executes the request. If the connection breaks during a request, its uses may be
//! counted twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::quota_counter::{Answer, PendingQuota, QuotaCounter};
use super::quota_store::{Counted, QuotaKey, QuotaStore};
use tidegate_connections::redis_client::{AttachedRedis, RedisError, Value, read, scripts};
use tidegate_core::clock::Timestamp;
use tidegate_core::error_chain::chain;
use tidegate_core::lock::lock;
use tidegate_telemetry::RepeatedWarning;

/// Time that a message waits for Redis before this node decides alone.
const TAKE_TIMEOUT: Duration = Duration::from_millis(250);

/// Pause before the next request after Redis failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Most uses that wait for Redis at once on this node. For further ones this node decides alone.
const WAITING_MAX: usize = 65_536;

/// Time for which a count is kept after its period, in milliseconds: clocks differ, and a count must not end early.
const EXPIRY_MARGIN_MILLIS: u64 = 60 * 60 * 1000;

/// A store that counts together with all nodes of the same Redis. [`RedisQuotaStore::run`] is its one task.
#[derive(Debug)]
pub struct RedisQuotaStore {
    redis: Arc<AttachedRedis>,
    state: Mutex<State>,
    work: Notify,
    /// Lock that is held during a request to Redis.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    counters: HashMap<Arc<QuotaKey>, QuotaCounter>,
    waiting: usize,
    /// Time until which this node decides alone, because Redis failed.
    alone_until: Option<Instant>,
    /// Warning that quotas are not counted in Redis.
    warning: RepeatedWarning,
    leaves: bool,
}

/// The reason why Redis gave no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("this node is not attached to Redis")]
    Detached,
    #[error("Redis did not answer in time")]
    Late,
    #[error("the Redis command failed")]
    Redis(#[source] RedisError),
}

impl QuotaStore for RedisQuotaStore {
    fn take(&self, key: &Arc<QuotaKey>, limit: u64) -> Counted {
        let now = Instant::now();
        let mut state = self.lock();
        let is_alone = state.decides_alone(now) || state.waiting >= WAITING_MAX;
        let counter = state.counter(key);
        let (is_taken, is_low) = counter.spend(limit, now);
        if is_low {
            self.work.notify_one();
        }
        if is_taken {
            return Counted::now(true);
        }
        if is_alone {
            return Counted::now(counter.spend_alone());
        }
        let (answer, counted) = oneshot::channel();
        if counter.wait(answer) {
            self.work.notify_one();
        }
        state.waiting += 1;
        Counted::Later(counted)
    }
}

impl RedisQuotaStore {
    /// Creates a store whose counts are in `redis`.
    pub fn new(redis: Arc<AttachedRedis>) -> Self {
        RedisQuotaStore { redis, state: Mutex::default(), work: Notify::new(), asking: tokio::sync::Mutex::default() }
    }

    /// Sends requests to Redis whenever uses wait, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut next = None;
        loop {
            let timer = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave().await,
                () = self.work.notified() => {}
                () = timer => {}
            }
            next = self.ask().await;
        }
    }

    /// Gives back unused reservations and adds uncounted uses in Redis. From now on this node decides alone.
    pub async fn leave(&self) {
        self.lock().leaves = true;
        self.ask().await;
    }

    /// Sends one pipeline for all counters and answers the waiting messages. Returns the time of the next request if
    /// one is due even though no message waits.
    async fn ask(&self) -> Option<Instant> {
        let _asking = self.asking.lock().await;
        let sent = Instant::now();
        let asked = self.lock().asked(sent);
        if !asked.is_empty() {
            let answers = self.send(&asked).await;
            self.answered(asked, answers, sent);
        }
        self.lock().next_look()
    }

    async fn send(&self, asked: &[(Arc<QuotaKey>, PendingQuota)]) -> Result<Vec<Value>, AskError> {
        let connection = self.redis.connection().ok_or(AskError::Detached)?;
        let calls: Vec<_> = asked
            .iter()
            .map(|(key, asked)| {
                let expires_at = Timestamp(key.ends.millis().saturating_add(EXPIRY_MARGIN_MILLIS));
                let name = self.redis.keys().quota(&key.plan, &key.api_key, &key.period);
                scripts::take(name, &asked.ask, expires_at)
            })
            .collect();
        match timeout(TAKE_TIMEOUT, connection.run(&calls)).await {
            Ok(Err(RedisError::TimedOut)) | Err(_) => Err(AskError::Late),
            Ok(answers) => answers.map_err(AskError::Redis),
        }
    }

    fn answered(
        &self,
        asked: Vec<(Arc<QuotaKey>, PendingQuota)>,
        answers: Result<Vec<Value>, AskError>,
        sent: Instant,
    ) {
        let mut state = self.lock();
        let mut failure = None;
        let mut answers = match answers {
            Ok(answers) => answers.into_iter(),
            Err(error) => {
                failure = Some(error);
                Vec::new().into_iter()
            }
        };
        for (key, asked) in asked {
            let answer = match (answers.next().map(read::<(u64, u64)>), &failure) {
                (Some(Ok((taken, count))), _) => Answer::Taken(taken, count),
                (_, Some(AskError::Late)) => Answer::Late,
                (Some(Err(_)) | None, _) => Answer::Lost,
            };
            state.counter(&key).answered(asked, answer, sent);
        }
        state.went(failure.as_ref());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn counter(&mut self, key: &Arc<QuotaKey>) -> &mut QuotaCounter {
        if !self.counters.contains_key(key) {
            // Counters of former periods are removed once they are settled.
            self.counters.retain(|old, counter| old.ends > key.begins || !counter.is_settled());
        }
        self.counters.entry(Arc::clone(key)).or_default()
    }

    fn decides_alone(&self, now: Instant) -> bool {
        self.leaves || self.alone_until.is_some_and(|until| until > now)
    }

    fn asked(&mut self, now: Instant) -> Vec<(Arc<QuotaKey>, PendingQuota)> {
        self.waiting = 0;
        let leaves = self.leaves;
        let asked =
            self.counters.iter_mut().filter_map(|(key, counter)| Some((Arc::clone(key), counter.ask(now, leaves)?)));
        asked.collect()
    }

    fn went(&mut self, failure: Option<&AskError>) {
        self.alone_until = failure.map(|_| Instant::now() + RETRY_INTERVAL);
        match failure {
            Some(error) => {
                let why = chain(error).to_string();
                if let Some(repeated) = self.warning.due(&why) {
                    warn!(
                        error = why,
                        repeated,
                        "could not count quotas in Redis; this node counts alone and retries in the background"
                    );
                }
            }
            None if self.warning.over() => info!("quotas are counted in Redis again"),
            None => {}
        }
    }

    fn next_look(&self) -> Option<Instant> {
        let owed = self.counters.values().any(QuotaCounter::owes).then(|| Instant::now() + RETRY_INTERVAL);
        // Uses that were accepted in the meantime have to be added in Redis.
        let alone = self.alone_until.filter(|until| *until > Instant::now());
        self.counters.values().filter_map(QuotaCounter::gives_back_at).chain(owed).chain(alone).min()
    }
}
