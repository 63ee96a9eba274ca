use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tidegate_connections::redis_client::{Reach, Redis, RedisCommand, RedisConnection, RedisError, Transport, Value};
use tidegate_core::id::{ConnectionId, NodeId};
use tokio::sync::{mpsc, oneshot};

use crate::judge::Judge;
use crate::store::{Data, Store};

/// The lease of the simulated cluster.
pub(crate) const LEASE: Duration = Duration::from_millis(3000);

/// Longest time of a call of `$connect`: longer than it takes to condemn its node.
pub(crate) const INTEGRATION_TIMEOUT: Duration = Duration::from_millis(8000);

/// By how much a write comes late, in ms: its node has given up its connection long before, and has another.
const LATE: u64 = 2_000;

/// The parts that all nodes share: Redis, the network, the backend, and the judge.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Inner>>);

pub(crate) struct Inner {
    /// True time in ms. The clocks of nodes run at their own rates.
    pub(crate) now: u64,
    pub(crate) store: Store,
    pub(crate) redis: RedisState,
    /// Redis's own clock is so much ahead.
    pub(crate) clock_ahead: u64,
    snapshots: Vec<(u64, Data)>,
    queue: Vec<Request>,
    /// Connections to Redis before this are broken.
    oldest_connection: Vec<u64>,
    connections: u64,
    /// The next answer of Redis to this place is lost, and its connection with it.
    pub(crate) lose_answer: BTreeSet<usize>,
    /// The next write of members from this place comes late, and its connection is lost.
    pub(crate) delay_write: BTreeSet<usize>,
    /// Writes that come late, and when.
    late: Vec<(u64, Vec<RedisCommand>)>,
    /// Cuts between a place and Redis, and between two places.
    pub(crate) redis_cuts: BTreeSet<usize>,
    pub(crate) peer_cuts: BTreeSet<(usize, usize)>,
    /// The processes by the node ids that they have or had, with their inboxes.
    pub(crate) nodes: BTreeMap<NodeId, usize>,
    /// The node id that each place has now.
    pub(crate) names: BTreeMap<usize, NodeId>,
    pub(crate) places: Vec<Place>,
    pub(crate) backend_is_down: bool,
    /// Nothing goes wrong any more, and clients join and leave nothing.
    pub(crate) is_calm: bool,
    pub(crate) judge: Judge,
    keys_seen: BTreeMap<NodeId, Option<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedisState {
    Up,
    /// Nobody listens.
    Down,
    /// It takes commands and carries them out later.
    Stalled,
}

/// A place where a process may run, as others see it.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) is_running: bool,
    pub(crate) is_stopped: bool,
    pub(crate) inbox: Option<mpsc::UnboundedSender<Message>>,
}

/// The messages on a link.
pub(crate) enum Message {
    Renew {
        node: NodeId,
        epoch: u64,
        lease: Duration,
        reply: oneshot::Sender<tidegate_connections::cluster::RelayedRenewal>,
    },
    Push {
        id: ConnectionId,
        reply: oneshot::Sender<Pushed>,
    },
}

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Written,
    Gone,
    Unavailable,
}

struct Request {
    place: usize,
    connection: u64,
    calls: Vec<RedisCommand>,
    reply: oneshot::Sender<Result<Vec<Value>, RedisError>>,
}

impl World {
    pub(crate) fn new(places: usize) -> Self {
        World(Arc::new(Mutex::new(Inner {
            now: 1_000_000,
            store: Store::new(),
            redis: RedisState::Up,
            clock_ahead: 0,
            snapshots: Vec::new(),
            queue: Vec::new(),
            oldest_connection: vec![0; places],
            connections: 0,
            lose_answer: BTreeSet::new(),
            delay_write: BTreeSet::new(),
            late: Vec::new(),
            redis_cuts: BTreeSet::new(),
            peer_cuts: BTreeSet::new(),
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            places: (0..places).map(|_| Place::default()).collect(),
            backend_is_down: false,
            is_calm: false,
            judge: Judge::default(),
            keys_seen: BTreeMap::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(crate) fn say(&self, text: impl AsRef<str>) {
        let mut inner = self.lock();
        let now = inner.now;
        inner.judge.say(now, text.as_ref());
    }
}

impl Inner {
    pub(crate) fn say(&mut self, text: &str) {
        self.judge.say(self.now, text);
    }

    /// The node id of a place.
    pub(crate) fn name_of(&self, place: usize) -> Option<NodeId> {
        self.names.get(&place).copied()
    }

    pub(crate) fn is_cut(&self, one: usize, other: usize) -> bool {
        self.peer_cuts.contains(&(one.min(other), one.max(other)))
    }

    /// Returns true if two places have a link.
    pub(crate) fn is_linked(&self, one: usize, other: usize) -> bool {
        one != other && !self.is_cut(one, other) && self.places[one].is_running && self.places[other].is_running
    }

    /// A moment passes.
    pub(crate) fn tick(&mut self, millis: u64) {
        self.now += millis;
        self.store.set_time(self.now + self.clock_ahead);
        if self.now.is_multiple_of(500) && !self.is_calm {
            self.snapshots.push((self.now, self.store.data()));
            if self.snapshots.len() > 20 {
                self.snapshots.remove(0);
            }
        }
        self.note_groups();
    }

    /// Places that are cut from Redis but hear another such place may be condemned while they serve.
    fn note_groups(&mut self) {
        if self.redis != RedisState::Up {
            return;
        }
        let cut: Vec<usize> = self.redis_cuts.iter().copied().collect();
        for place in &cut {
            if cut.iter().any(|other| self.is_linked(*place, *other)) {
                self.judge.in_group(*place, self.now);
            }
        }
    }

    /// Redis carries out what has come, in its order.
    pub(crate) fn serve_redis(&mut self) {
        if self.redis == RedisState::Up {
            let due = self.late.extract_if(.., |(at, _)| *at <= self.now).flat_map(|(_, calls)| calls);
            due.for_each(|call| _ = self.store.execute(&call));
        }
        if self.queue.is_empty() {
            return;
        }
        for request in std::mem::take(&mut self.queue) {
            let Request { place, connection, calls, reply } = request;
            let is_broken = connection < self.oldest_connection[place];
            match self.redis {
                _ if self.redis_cuts.contains(&place) => drop_silently(reply),
                RedisState::Stalled => self.queue.push(Request { place, connection, calls, reply }),
                RedisState::Down => _ = reply.send(Err(RedisError::Unexpected)),
                // What came before the break was in Redis's hands already.
                RedisState::Up if is_broken && !reply.is_closed() => _ = reply.send(Err(RedisError::Unexpected)),
                RedisState::Up if writes_members(&calls) && self.delay_write.remove(&place) => {
                    self.late.push((self.now + LATE, calls));
                    self.break_connections(place);
                    let _ = reply.send(Err(RedisError::Unexpected));
                }
                RedisState::Up => {
                    let answers = calls.iter().map(|call| self.store.execute(call)).collect();
                    if self.lose_answer.remove(&place) {
                        self.break_connections(place);
                        let _ = reply.send(Err(RedisError::Unexpected));
                    } else {
                        let _ = reply.send(Ok(answers));
                    }
                }
            }
        }
        self.note_keys();
    }

    fn note_keys(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            let key = self.store.get(&format!("t:{{{node}}}:node"));
            let before = self.keys_seen.insert(node, key.clone()).flatten();
            if before != key {
                let text = key.as_deref().unwrap_or("nothing");
                self.say(&format!("    Redis has {text} for {node} of place {}", self.nodes[&node]));
            }
        }
    }

    pub(crate) fn break_connections(&mut self, place: usize) {
        self.connections += 1;
        self.oldest_connection[place] = self.connections;
    }

    pub(crate) fn break_all_connections(&mut self) {
        (0..self.places.len()).for_each(|place| self.break_connections(place));
    }

    /// Redis carries out what it has at once, before anybody else's clock goes on.
    pub(crate) fn redis_goes_on(&mut self) {
        self.redis = RedisState::Up;
        self.serve_redis();
    }

    /// Redis starts again, with what it had so many ms ago, or with nothing. Returns when it had that.
    pub(crate) fn restart_redis(&mut self, with_data_of: Option<u64>) -> u64 {
        let at = with_data_of.map(|ago| self.now.saturating_sub(ago));
        let snapshot = at.and_then(|at| self.snapshots.iter().rfind(|(time, _)| *time <= at));
        let (had, data) = snapshot.cloned().unwrap_or_default();
        self.store.restart(data);
        self.late.clear();
        self.queue.retain(|request| !request.reply.is_closed());
        self.break_all_connections();
        self.redis = RedisState::Up;
        had
    }

    /// Returns true if any record of a connection is in Redis.
    pub(crate) fn recorded(&self) -> BTreeSet<String> {
        let records = self.store.contents().into_iter().filter(|(key, ..)| key.contains("}:c:"));
        records.flat_map(|(_, fields, _)| fields).collect()
    }
}

fn writes_members(calls: &[RedisCommand]) -> bool {
    calls.iter().any(|call| call.script_text().is_some() && call.keys().get(1).is_some_and(|key| key.ends_with("}:t")))
}

fn drop_silently(reply: oneshot::Sender<Result<Vec<Value>, RedisError>>) {
    // Whoever waits gives up by himself.
    std::mem::forget(reply);
}

/// The way of one process to Redis.
#[derive(Clone)]
pub(crate) struct SimRedis {
    pub(crate) world: World,
    pub(crate) place: usize,
}

impl std::fmt::Debug for SimRedis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimRedis")
    }
}

struct SimConnection {
    world: World,
    place: usize,
    number: u64,
}

impl Redis for SimRedis {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<RedisConnection, RedisError>> {
        Box::pin(async move {
            let number = {
                let mut inner = self.world.lock();
                let is_cut = inner.redis_cuts.contains(&self.place);
                match inner.redis {
                    _ if is_cut => None,
                    RedisState::Stalled => None,
                    RedisState::Down => return Err(RedisError::Unexpected),
                    RedisState::Up => {
                        inner.connections += 1;
                        Some(inner.connections)
                    }
                }
            };
            let Some(number) = number else {
                tokio::time::sleep(timeout).await;
                return Err(RedisError::TimedOut);
            };
            let connection = SimConnection { world: self.world.clone(), place: self.place, number };
            Ok(RedisConnection::played(Arc::new(connection), timeout))
        })
    }

    fn address(&self) -> String {
        "simulated".to_owned()
    }

    fn reach(&self, timeout: Duration) -> BoxFuture<'_, Reach> {
        Box::pin(async move {
            let reach = {
                let inner = self.world.lock();
                match inner.redis {
                    _ if inner.redis_cuts.contains(&self.place) => Reach::Silent,
                    RedisState::Down => Reach::Refused,
                    RedisState::Up | RedisState::Stalled => Reach::Accepted,
                }
            };
            if reach == Reach::Silent {
                tokio::time::sleep(timeout).await;
            }
            reach
        })
    }
}

impl Transport for SimConnection {
    fn run(&self, calls: Vec<RedisCommand>) -> BoxFuture<'_, Result<Vec<Value>, RedisError>> {
        let (reply, answer) = oneshot::channel();
        let request = Request { place: self.place, connection: self.number, calls, reply };
        self.world.lock().queue.push(request);
        Box::pin(async move { answer.await.unwrap_or(Err(RedisError::TimedOut)) })
    }
}
