//! Which nodes have members of a group or of a user, as they have written in Redis: then a message for a group goes only
//! to those. Redis is believed only as far as nobody can be missed:
//!
//! - A node that has written down all of its members says so, for [`PROMISED`] at a time, by Redis's clock. Whoever has
//!   not, or not lately, is asked whatever is written.
//! - Whoever joins waits until that is written, or until the node's last word has run out. So whatever a backend was told
//!   to be a member gets what is sent afterwards, from any node.
//! - When Redis cannot be asked, every node is.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::mirror::{Attachment, Mirror};
use crate::groups::{Changes, Groups};
use crate::id::NodeId;
use crate::redis_client::roster::{self, Found, Writer};
use crate::redis_client::{Call, RedisConnection, RedisError, read, scripts};
use crate::telemetry::{RepeatedWarning, chain};
use crate::topic::{Topic, TopicName};

/// How long a node's word lasts that all of its members are written.
const PROMISED: Duration = Duration::from_secs(1);

/// How long whoever gave it waits for its end: Redis's clock may go slower than his.
const BELIEVED: Duration = Duration::from_millis(1100);

/// How often it is given again.
const PROMISE_INTERVAL: Duration = Duration::from_millis(300);

/// Most groups and users of one write.
const BATCH: usize = 256;

/// Most groups and users that Redis is asked for at once. For more, every node is asked.
const FIND_MAX: usize = 256;

/// How long a message waits for Redis to say where its members are; then every node is asked.
const FIND_TIMEOUT: Duration = Duration::from_millis(100);

/// For how long Redis is not asked after it did not answer.
const BLIND: Duration = Duration::from_secs(1);

/// How long Redis must have answered until its silence is over.
const BLIND_QUIET: Duration = Duration::from_secs(60);

/// What this node's own members are made known by, and other nodes' found.
#[derive(Debug)]
pub struct Roster {
    groups: Arc<Groups>,
    mirror: Arc<Mirror>,
    /// How many changes are written, of all that were ever marked; see [`Changes`].
    written: watch::Sender<u64>,
    /// Until then others may believe what is written of this node.
    believed_until: Mutex<Option<Instant>>,
    blind_until: Mutex<Option<Instant>>,
    /// Redis does not say who has members.
    blind: RepeatedWarning,
    leaving: CancellationToken,
    left: CancellationToken,
}

/// Who may have members of some groups and users.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    sure: HashSet<NodeId>,
    by_name: HashMap<TopicName, Vec<NodeId>>,
}

#[derive(Debug, Error)]
enum RosterError {
    #[error("the Redis command failed")]
    Redis(#[source] RedisError),
    #[error("Redis says of this node: `{0}`")]
    NotOurs(String),
}

/// What the writing task knows.
#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    generation: u64,
    /// It cannot write.
    warning: RepeatedWarning,
}

/// Where it writes.
#[derive(Debug)]
struct Current {
    attachment: Attachment,
    incarnation: u32,
    writer: Writer,
    /// Nothing counts as written before so many changes are: all that there was when it began.
    complete_at: u64,
    promise_at: Instant,
    clock: RedisClock,
}

/// Redis's clock, as it was when an answer came.
#[derive(Clone, Copy, Debug)]
struct RedisClock {
    millis: u64,
    answered: Instant,
}

impl Roster {
    /// Of the members in `groups`, written where `mirror` writes. [`Roster::run`] is its one task.
    pub fn new(groups: Arc<Groups>, mirror: Arc<Mirror>) -> Self {
        let written = watch::Sender::new(0);
        Roster {
            groups,
            mirror,
            written,
            believed_until: Mutex::default(),
            blind_until: Mutex::default(),
            blind: RepeatedWarning::default(),
            leaving: CancellationToken::new(),
            left: CancellationToken::new(),
        }
    }

    /// Who may have members of these, of one API. `None` if nobody can tell: then all may.
    pub async fn find(&self, api_id: &Arc<str>, names: HashSet<&TopicName>) -> Option<Holders> {
        if names.len() > FIND_MAX || lock(&self.blind_until).is_some_and(|until| until > Instant::now()) {
            return None;
        }
        let connection = self.mirror.connection().filter(RedisConnection::is_one_server)?;
        let names: Vec<TopicName> = names.into_iter().cloned().collect();
        let topics = names.iter().map(|name| Topic { api_id: Arc::clone(api_id), name: name.clone() });
        let call = roster::find(self.mirror.keys(), topics);
        let started = Instant::now();
        let answer = timeout(FIND_TIMEOUT, connection.run_one(call)).await.unwrap_or(Err(RedisError::TimedOut));
        self.mirror.metrics().took("find", started.elapsed());
        match answer.and_then(roster::found) {
            Ok(found) => {
                self.blind.over_after(BLIND_QUIET);
                Some(Holders::new(names, &found))
            }
            Err(error) => {
                let why = chain(&error).to_string();
                if let Some(repeated) = self.blind.due(&why) {
                    warn!(error = why, repeated, "Redis does not say who has members of groups; every node is asked");
                }
                *lock(&self.blind_until) = Some(Instant::now() + BLIND);
                None
            }
        }
    }

    /// Waits until whatever has joined on this node before this call is found by all nodes.
    pub async fn recorded(&self) {
        let mut written = self.written.subscribe();
        let mut marked = None;
        loop {
            // While nothing was collected it has no number yet; it gets one as soon as all members are written anew.
            marked = marked.or_else(|| self.groups.changes().marked());
            if marked.is_some_and(|marked| *written.borrow_and_update() >= marked) {
                return;
            }
            let believed = lock(&self.believed_until).filter(|until| *until > Instant::now());
            let Some(until) = believed else { return };
            tokio::select! {
                _ = written.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Writes what changes until `stop`, or until this node has left.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let _left = self.left.clone().drop_guard();
        let mut state = State::default();
        while let Some(is_current) = stop.run_until_cancelled(self.pass(&mut state)).await {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.leaving.cancelled() => break,
                () = self.groups.changes().work(), if is_current => {}
                () = sleep(PROMISE_INTERVAL) => {}
            }
        }
        self.pass(&mut state).await;
        let Some(Current { attachment, .. }) = state.current else { return };
        let word = Call::command("HDEL", self.mirror.keys().roster()).arg(attachment.node.to_string());
        if let Err(error) = attachment.connection.run_one(word).await {
            debug!(error = %chain(&error), "this node's word in Redis runs out by itself");
        }
    }

    /// Writes what is still to be written, and nothing afterwards.
    pub async fn leave(&self) {
        self.leaving.cancel();
        self.left.cancelled().await;
    }

    /// Writes all that has changed. `false` if it cannot.
    async fn pass(&self, state: &mut State) -> bool {
        let is_current = match self.mirror.attachment() {
            Some((attachment, incarnation)) if attachment.connection.is_one_server() => {
                let worked = self.write(state, attachment, incarnation).await;
                if let Err(error) = &worked {
                    let why = chain(error).to_string();
                    if let Some(repeated) = state.warning.due(&why) {
                        warn!(
                            error = why,
                            repeated, "members of groups are not written in Redis; this node is always asked"
                        );
                    }
                }
                worked.is_ok()
            }
            _ => false,
        };
        if !is_current && state.current.take().is_some() {
            self.groups.changes().collect(false);
        }
        is_current
    }

    async fn write(&self, state: &mut State, attachment: Attachment, incarnation: u32) -> Result<(), RosterError> {
        let current = match &mut state.current {
            Some(current) if current.is(&attachment, incarnation) => current,
            _ => {
                state.generation += 1;
                let begun = self.begin(attachment, incarnation, state.generation).await?;
                state.current.insert(begun)
            }
        };
        loop {
            let (topics, taken) = self.groups.changes().take(BATCH);
            let is_idle = topics.is_empty();
            if !is_idle {
                let keys = topics.iter().map(|topic| (self.mirror.keys().topic(topic), self.groups.count(topic)));
                self.put(current, &keys.collect::<Vec<_>>()).await?;
            }
            let is_complete = taken >= current.complete_at;
            if is_complete {
                self.written.send_replace(taken);
            }
            if is_complete
                && Instant::now() >= current.promise_at
                && let Some(sent) = self.begin_promise(taken)
            {
                let until = current.clock.at(sent + PROMISED);
                current.clock = self.say(&current.attachment, &current.writer, until).await?;
                current.promise_at = sent + PROMISE_INTERVAL;
                state.warning.over();
                self.groups.changes().put_counts();
            }
            if is_idle {
                return Ok(());
            }
        }
    }

    /// Begins anew: all members are to be written, and what is written of others that this node does not have is taken
    /// away.
    async fn begin(&self, attachment: Attachment, incarnation: u32, generation: u64) -> Result<Current, RosterError> {
        let changes: &Changes = self.groups.changes();
        let writer = Writer { node: attachment.node, epoch: attachment.epoch, generation };
        // The old word is still waited for: a Redis that is rolled back may have it again.
        let clock = self.say(&attachment, &writer, 0).await?;
        changes.collect(true);
        self.groups.mark_all();
        let complete_at = changes.marked().unwrap_or(u64::MAX);
        let current = Current { attachment, incarnation, writer, complete_at, promise_at: Instant::now(), clock };
        self.remove_strangers(&current).await?;
        Ok(current)
    }

    /// What is written of this node and is not so.
    async fn remove_strangers(&self, current: &Current) -> Result<(), RosterError> {
        let keys = self.mirror.keys();
        let own: HashSet<String> = self.groups.topics().iter().map(|topic| keys.topic(topic)).collect();
        let mut cursor = 0_u64;
        loop {
            let scan = Call::command("SSCAN", keys.topics(current.writer.node))
                .arg(cursor.to_string())
                .arg("COUNT")
                .arg(BATCH.to_string());
            let answer = current.attachment.connection.run_one(scan).await;
            let (next, written): (u64, Vec<String>) = answer.and_then(read).map_err(RosterError::Redis)?;
            // One that has come meanwhile is written afterwards.
            let strangers: Vec<_> = written.into_iter().filter(|key| !own.contains(key)).map(|key| (key, 0)).collect();
            if !strangers.is_empty() {
                self.put(current, &strangers).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn put(&self, current: &Current, counts: &[(String, usize)]) -> Result<(), RosterError> {
        let call = roster::write(self.mirror.keys(), &current.writer, counts);
        let started = Instant::now();
        let answer = current.attachment.connection.run_one(call).await;
        self.mirror.metrics().took("members", started.elapsed());
        let answer: String = answer.and_then(read).map_err(RosterError::Redis)?;
        if answer == scripts::OK { Ok(()) } else { Err(RosterError::NotOurs(answer)) }
    }

    /// From when others may believe what is written, now that so many changes are. `None` if they may not.
    ///
    /// Since the last word ran out nobody who joined has waited: all of that must be written before the next is given.
    fn begin_promise(&self, taken: u64) -> Option<Instant> {
        let mut believed_until = lock(&self.believed_until);
        let sent = Instant::now();
        let is_believed = believed_until.is_some_and(|until| until > sent);
        let may = is_believed || self.groups.changes().marked().is_some_and(|marked| taken >= marked);
        if !may {
            return None;
        }
        // Before Redis has answered: it may have taken it.
        *believed_until = Some(sent + BELIEVED);
        Some(sent)
    }

    async fn say(&self, attachment: &Attachment, writer: &Writer, until: u64) -> Result<RedisClock, RosterError> {
        let call = roster::promise(self.mirror.keys(), writer, until);
        let answer = attachment.connection.run_one(call).await.and_then(read);
        let (answer, millis): (String, u64) = answer.map_err(RosterError::Redis)?;
        if answer == scripts::OK {
            Ok(RedisClock { millis, answered: Instant::now() })
        } else {
            Err(RosterError::NotOurs(answer))
        }
    }
}

impl Holders {
    fn new(names: Vec<TopicName>, found: &Found) -> Self {
        let nodes = |texts: &[String]| texts.iter().filter_map(|text| NodeId::parse(text).ok()).collect::<Vec<_>>();
        let by_name = names.into_iter().zip(found.holders.iter().map(|texts| nodes(texts))).collect();
        Holders { sure: nodes(&found.sure).into_iter().collect(), by_name }
    }

    /// Whether this node may have members of one of these.
    pub fn may_have(&self, node: &NodeId, names: &[TopicName]) -> bool {
        let has = |name: &TopicName| self.by_name.get(name).is_none_or(|nodes| nodes.contains(node));
        !self.sure.contains(node) || names.iter().any(has)
    }
}

impl Current {
    fn is(&self, attachment: &Attachment, incarnation: u32) -> bool {
        let key = |of: &Attachment| (of.node, of.epoch, of.serial);
        key(&self.attachment) == key(attachment) && self.incarnation == incarnation
    }
}

impl RedisClock {
    /// What it shows at `when`, or a little less: it was read before the answer came.
    fn at(&self, when: Instant) -> u64 {
        let since = when.saturating_duration_since(self.answered).as_millis();
        self.millis.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

fn lock(shared: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_sure_is_asked() {
        let [a, b, c] = [(); 3].map(|()| NodeId::random());
        let [room, other] = ["room", "other"].map(|name| TopicName::group(name).unwrap());
        let texts = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect();
        let found = Found { sure: texts(&[a, b]), holders: vec![texts(&[b]), texts(&[a])] };
        let holders = Holders::new(vec![room.clone(), other.clone()], &found);
        let check = |names: &[TopicName], expected: [bool; 3]| {
            assert_eq!([a, b, c].map(|node| holders.may_have(&node, names)), expected);
        };
        check(std::slice::from_ref(&room), [false, true, true]);
        check(std::slice::from_ref(&other), [true, false, true]);
        check(&[room, other], [true, true, true]);
        check(&[TopicName::user("room").unwrap()], [true, true, true]);
    }
}
