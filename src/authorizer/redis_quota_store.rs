//! Quotas that all nodes count together.
//!
//! The count is in Redis. A message waits for one round trip, which it shares with all others that wait on this node, so
//! Redis gets one pipeline at a time from each node however many messages come. While more than [`LEFT`] remain of a
//! quota, a node takes [`RESERVE`] ahead and uses them without asking: a client that may send that many pays no round
//! trip. Towards the end of a quota nothing is taken ahead, so the last one is found exactly, on whichever node it is.
//!
//! What is taken ahead and not used is given back after [`RESERVE_LIFE`] and when the node leaves. A node that dies
//! takes it along: at most [`RESERVE`] of more than [`LEFT`].
//!
//! While Redis is away each node goes on from the count that it knows, so by itself it never lets more through than the
//! quota; when Redis is back, what was used meanwhile is added. A Redis that has lost the count gets it back from the
//! first node that asks. An answer that does not come in time is taken for a yes as far as the count allows: a slow Redis
//! carries the question out later. A connection that breaks in the middle of one may count it twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::quota_counter::{Answer, Asked, QuotaCounter};
use super::quota_store::{Counted, QuotaKey, QuotaStore};
use crate::clock::Timestamp;
use crate::error_chain::chain;
use crate::lock::lock;
use crate::redis_client::{RedisError, Value, read, scripts};
use crate::registry::RedisReplica;
use crate::telemetry::RepeatedWarning;

/// How long a message waits for Redis before this node decides alone.
const TAKE_TIMEOUT: Duration = Duration::from_millis(250);

/// How long Redis is left alone after it failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Who waits for Redis at once, on this node. Beyond it this node decides alone.
const WAITING_MAX: usize = 65_536;

/// How much longer than its period a count is kept, in milliseconds: clocks differ, and a count must not end early.
const EXPIRY_MARGIN_MILLIS: u64 = 60 * 60 * 1000;

/// Counts with all nodes that have the same Redis. [`RedisQuotaStore::run`] is its one task.
#[derive(Debug)]
pub struct RedisQuotaStore {
    replica: Arc<RedisReplica>,
    state: Mutex<State>,
    work: Notify,
    /// Held while Redis is asked.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    counters: HashMap<Arc<QuotaKey>, QuotaCounter>,
    waiting: usize,
    /// Until then Redis is left alone.
    alone_until: Option<Instant>,
    /// Redis does not count.
    warning: RepeatedWarning,
    leaves: bool,
}

/// Why Redis did not answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("this node is not attached to Redis")]
    Detached,
    #[error("Redis does not answer in time")]
    Late,
    #[error("the question failed")]
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
    /// A store whose counts are where the replica's records are.
    pub fn new(replica: Arc<RedisReplica>) -> Self {
        RedisQuotaStore { replica, state: Mutex::default(), work: Notify::new(), asking: tokio::sync::Mutex::default() }
    }

    /// Asks Redis whenever somebody waits, until `stop`.
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

    /// Gives back what is not used and writes what is owed. From now on this node decides alone.
    pub async fn leave(&self) {
        self.lock().leaves = true;
        self.ask().await;
    }

    /// Asks for all at once, and answers whoever waits. When to ask again although nobody does.
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

    async fn send(&self, asked: &[(Arc<QuotaKey>, Asked)]) -> Result<Vec<Value>, AskError> {
        let connection = self.replica.connection().ok_or(AskError::Detached)?;
        let calls: Vec<_> = asked
            .iter()
            .map(|(key, asked)| {
                let expires_at = Timestamp(key.ends.millis().saturating_add(EXPIRY_MARGIN_MILLIS));
                let name = self.replica.keys().quota(&key.plan, &key.api_key, &key.period);
                scripts::take(name, &asked.ask, expires_at)
            })
            .collect();
        match timeout(TAKE_TIMEOUT, connection.run(&calls)).await {
            Ok(Err(RedisError::TimedOut)) | Err(_) => Err(AskError::Late),
            Ok(answers) => answers.map_err(AskError::Redis),
        }
    }

    fn answered(&self, asked: Vec<(Arc<QuotaKey>, Asked)>, answers: Result<Vec<Value>, AskError>, sent: Instant) {
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
            // Counters of former periods go as soon as nothing is lost with them.
            self.counters.retain(|old, counter| old.ends > key.begins || !counter.is_settled());
        }
        self.counters.entry(Arc::clone(key)).or_default()
    }

    fn decides_alone(&self, now: Instant) -> bool {
        self.leaves || self.alone_until.is_some_and(|until| until > now)
    }

    fn asked(&mut self, now: Instant) -> Vec<(Arc<QuotaKey>, Asked)> {
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
                    warn!(error = why, repeated, "quotas cannot be asked for in Redis: this node counts alone");
                }
            }
            None if self.warning.over() => info!("quotas are counted in Redis again"),
            None => {}
        }
    }

    fn next_look(&self) -> Option<Instant> {
        let owed = self.counters.values().any(QuotaCounter::owes).then(|| Instant::now() + RETRY_INTERVAL);
        // Whoever decided alone meanwhile has left something to be written.
        let alone = self.alone_until.filter(|until| *until > Instant::now());
        self.counters.values().filter_map(QuotaCounter::gives_back_at).chain(owed).chain(alone).min()
    }
}
