use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidegate_connections::cluster::{
    Heartbeat, HeartbeatHandle, HeartbeatSettings, Membership, PeerLease, Reaper, ReaperSettings, Standing, Times,
    renew_for,
};
use tidegate_connections::redis_client::{AttachedRedis, Keys};
use tidegate_connections::registry::claims::ClaimedEvent;
use tidegate_connections::registry::{RedisReplica, Registry, ReplicaSettings, WhenUnavailable, watch_gate, writer};
use tidegate_connections::session::{Closing, Outbox};
use tidegate_core::clock::Timestamp;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::limits::LimitSettings;
use tidegate_core::request_context::Connection;
use tidegate_telemetry::Metrics;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::members::{API_ID, Members};
use crate::peers::SimPeers;
use crate::world::{INTEGRATION_TIMEOUT, LEASE, Message, Pushed, SimRedis, World};

/// Time between two rounds of serving clients and making pushes.
const STEP: Duration = Duration::from_millis(100);

/// Pause before an event is sent again.
const RETRY: Duration = Duration::from_millis(700);

/// A process: a runtime with a clock of its own, and in it the real registry, replica, heartbeat, writer and reaper.
/// The flows of clients and backends around them are short.
pub(crate) struct Process {
    runtime: Runtime,
    /// Factor by which the process's clock is faster than true time.
    rate: f64,
    /// Stopped since then, in true ms.
    stopped: Option<u64>,
    pub(crate) flows: Arc<Flows>,
    heartbeat: HeartbeatHandle,
}

/// The parts of a process beside the cluster.
pub(crate) struct Flows {
    world: World,
    place: usize,
    pub(crate) registry: Arc<Registry>,
    replica: Arc<RedisReplica>,
    membership: Arc<Membership>,
    pub(crate) members: Arc<Members>,
    random: Mutex<StdRng>,
    tasks: TaskTracker,
    leaving: AtomicBool,
}

impl Process {
    pub(crate) fn start(world: &World, place: usize, seed: u64, rate: f64) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let node = NodeId::from_bits(random.random::<u64>() >> 16);
        let (flows, heartbeat) = runtime.block_on(async {
            let metrics = Metrics::new("memory");
            let redis = Arc::new(AttachedRedis::new(Keys::new("t"), metrics.registry()));
            // Small batches, so that much can happen between two of them.
            let batch = random.random_range(1..6);
            let settings = ReplicaSettings { batch, ..ReplicaSettings::new(20_000, WhenUnavailable::Accept) };
            let replica = Arc::new(RedisReplica::new(Arc::clone(&redis), settings));
            let times = Times::new(LEASE);
            let registry = Arc::new(Registry::replicated(node, times.hold(), Arc::clone(&replica)));
            let (membership, refreshes) = Membership::new();
            let membership = Arc::new(membership);
            let settings = HeartbeatSettings {
                redis: Arc::new(SimRedis { world: world.clone(), place }),
                peers: Arc::new(SimPeers { world: world.clone(), place, membership: Arc::clone(&membership) }),
                times,
                advertise: format!("place:{place}"),
                seed: random.random(),
            };
            let member = (Arc::clone(&membership), refreshes);
            let (heartbeat, handle) = Heartbeat::new(settings, Arc::clone(&registry), Arc::clone(&replica), member);
            // A reaper holds no more than may wait of the node's own.
            registry.set_limits(&LimitSettings {
                disconnect_backlog: random.random_range(1..8),
                ..LimitSettings::default()
            });
            let settings = ReaperSettings::new(times);
            let gauge = metrics.reaping();
            let reaper =
                Reaper::new(settings, Arc::clone(&registry), Arc::clone(&redis), Arc::clone(&membership), gauge);
            let events = registry.claims().events().unwrap();
            let (inbox, messages) = mpsc::unbounded_channel();
            {
                let mut inner = world.lock();
                inner.nodes.insert(node, place);
                inner.names.insert(place, node);
                let at = &mut inner.places[place];
                (at.is_running, at.is_stopped, at.inbox) = (true, false, Some(inbox));
                inner.say(&format!("place {place} starts as {node}, clock rate {rate:.3}"));
            }
            let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
            tasks.spawn(writer::run(Arc::clone(&registry), Arc::clone(&replica), stop.clone()));
            tasks.spawn(heartbeat.run(stop.clone()));
            tasks.spawn(reaper.run(stop.clone()));
            tasks.spawn(watch_gate(Arc::clone(&registry), stop.clone()));
            let members = Arc::new(Members::new(world, place, random.random(), redis));
            tasks.spawn(Arc::clone(&members.group_index).run(stop));
            let random = Mutex::new(random);
            let (world, leaving) = (world.clone(), AtomicBool::new(false));
            let flows = Flows { world, place, registry, replica, membership, members, random, tasks, leaving };
            let flows = Arc::new(flows);
            flows.tasks.spawn(Arc::clone(&flows).take_over(events));
            flows.tasks.spawn(Arc::clone(&flows).answer(messages));
            flows.tasks.spawn(Arc::clone(&flows).push());
            flows.tasks.spawn(Arc::clone(&flows.members).find());
            (flows, handle)
        });
        Process { runtime, rate, stopped: None, flows, heartbeat }
    }

    /// Lives for so long by true time.
    pub(crate) fn run(&self, time: Duration) {
        if self.stopped.is_none() {
            self.runtime.block_on(async { sleep(time.mul_f64(self.rate)).await });
        }
    }

    pub(crate) fn stop(&mut self) {
        let mut inner = self.flows.world.lock();
        inner.places[self.flows.place].is_stopped = true;
        inner.say(&format!("place {} is stopped", self.flows.place));
        self.stopped = Some(inner.now);
    }

    pub(crate) fn wake(&mut self) {
        let Some(since) = self.stopped.take() else { return };
        let slept = {
            let mut inner = self.flows.world.lock();
            inner.places[self.flows.place].is_stopped = false;
            inner.say(&format!("place {} goes on", self.flows.place));
            Duration::from_millis(inner.now - since)
        };
        // Its clock has gone on, and everything that was due meanwhile is due at once.
        self.runtime.block_on(tokio::time::advance(slept.mul_f64(self.rate)));
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// A client comes.
    pub(crate) fn connect(&self) {
        let flows = Arc::clone(&self.flows);
        self.runtime.block_on(async {
            flows.tasks.spawn(Arc::clone(&flows).client());
        });
    }

    /// All clients go.
    pub(crate) fn send_clients_away(&self) {
        self.flows.leaving.store(true, Ordering::Relaxed);
    }

    /// Drains: clients are closed, then the node leaves.
    pub(crate) fn leave(&self) {
        self.send_clients_away();
        let (heartbeat, group_index) = (self.heartbeat.clone(), Arc::clone(&self.flows.members.group_index));
        self.runtime.block_on(async {
            self.flows.tasks.spawn(async move {
                group_index.leave().await;
                heartbeat.leave().await;
            });
        });
    }

    /// Returns the state of the serving gate, for the trace.
    pub(crate) fn describe(&self) -> String {
        let registry = &self.flows.registry;
        let gate = self.runtime.block_on(async { registry.gate().is_open() });
        let counts = registry.replica().and_then(|replica| replica.settled_counts());
        let settled = counts.map_or("busy".to_owned(), |counts| format!("{} settled", counts.iter().sum::<usize>()));
        format!(
            "{} {} {} {} entries {} held {settled}",
            registry.node(),
            registry.state().name(),
            if gate { "open" } else { "SHUT" },
            registry.len(),
            registry.claims().len()
        )
    }
}

impl Flows {
    fn chance(&self, probability: f64) -> bool {
        self.random.lock().unwrap().random_bool(probability)
    }

    fn millis(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.lock().unwrap().random_range(range)
    }

    /// The life of one client: as `connect.rs` and `session_loop.rs` have it.
    async fn client(self: Arc<Self>) {
        let id = {
            let mut bytes = [0; 14];
            bytes[..6].copy_from_slice(&self.registry.node().to_bytes());
            self.random.lock().unwrap().fill(&mut bytes[6..]);
            ConnectionId::from_bytes(bytes)
        };
        let connection = Arc::new(Connection {
            api_id: API_ID.into(),
            user_agent: Some("a browser that many have".into()),
            ..Connection::sample(id)
        });
        self.world.lock().judge.began(self.place, &id);
        self.registry.connect(&connection, None);
        if self.registry.record(&id).await.is_err() || !self.registry.gate().is_open() {
            self.registry.refuse(&id);
            return;
        }
        if matches!(self.registry.state().name(), "attached" | "rebuilding") {
            self.world.lock().judge.recorded(&id);
        }
        match self.ask_to_connect(&id).await {
            Some(true) => {}
            Some(false) => return self.registry.refuse(&id),
            None => return self.end(&connection, Closing::lost()),
        }
        if !self.registry.gate().opened_in_time().await {
            return self.end(&connection, Closing::isolated());
        }
        let outbox = Arc::new(Outbox::new(1024, Timestamp(0)));
        if !self.registry.open(&id, Arc::clone(&outbox)) {
            return self.end(&connection, Closing::fenced());
        }
        self.world.lock().judge.opened(&id);
        self.tasks.spawn(self.members.change(&connection, &outbox));
        let stays = if self.chance(0.5) { u64::MAX } else { self.millis(500..15_000) };
        let mut stayed = 0;
        while outbox.is_open() && stayed < stays && !self.leaving.load(Ordering::Relaxed) {
            if self.registry.may_serve(&id) {
                let mut inner = self.world.lock();
                let now = inner.now;
                inner.judge.served(now, self.place, &id);
            }
            if self.chance(0.1) {
                self.tasks.spawn(self.members.change(&connection, &outbox));
            }
            sleep(STEP).await;
            stayed += 100;
        }
        self.end(&connection, Closing::by_client(None));
    }

    /// The backend's answer to a `$connect`: accepted, refused, or none.
    async fn ask_to_connect(&self, id: &ConnectionId) -> Option<bool> {
        let takes = if self.chance(0.3) { self.millis(100..7300) } else { self.millis(0..200) };
        let (accepts, is_lost) = (self.chance(0.9), self.chance(0.05));
        let until = {
            let mut inner = self.world.lock();
            let (now, until) = (inner.now, inner.now + takes);
            inner.judge.connecting(now, id, until);
            // Whatever becomes of this process, the backend has made up its mind.
            inner.judge.connections.entry(*id).or_default().is_accepted = accepts;
            until
        };
        // The backend has a clock of its own.
        let answer = async {
            while self.world.lock().now < until {
                sleep(STEP / 4).await;
            }
        };
        let answered = timeout(INTEGRATION_TIMEOUT, answer).await;
        (answered.is_ok() && !is_lost).then_some(accepts)
    }

    fn end(self: &Arc<Self>, connection: &Connection, closing: Closing) {
        let id = &connection.id;
        {
            let mut inner = self.world.lock();
            let now = inner.now;
            inner.judge.ended(now, id);
        }
        let is_ended = self.registry.end(id, closing);
        self.members.end(connection);
        if is_ended {
            self.tasks.spawn(Arc::clone(self).deliver(*id, Duration::ZERO));
        }
    }

    /// Sends an event until the backend has taken it, or until it is not for this node to send.
    async fn deliver(self: Arc<Self>, id: ConnectionId, pause: Duration) {
        sleep(pause).await;
        loop {
            self.registry.gate().opened().await;
            let Some(ended) = self.registry.begin_attempt(&id) else { return };
            if self.tell(&id).await {
                self.registry.settle(&ended.connection.id);
                return;
            }
            if self.registry.retry(&id).is_none() {
                return;
            }
            sleep(RETRY).await;
        }
    }

    /// Makes one call. Returns true if the backend has acknowledged it.
    async fn tell(&self, id: &ConnectionId) -> bool {
        let is_down = {
            let mut inner = self.world.lock();
            let now = inner.now;
            inner.judge.sent(now, self.place, id, id.disconnect_event().as_str());
            inner.backend_is_down
        };
        sleep(Duration::from_millis(self.millis(0..250))).await;
        if is_down {
            return false;
        }
        self.world.lock().judge.told(id);
        !self.chance(0.05)
    }

    async fn take_over(self: Arc<Self>, mut events: mpsc::UnboundedReceiver<ClaimedEvent>) {
        while let Some(ClaimedEvent { id, connecting }) = events.recv().await {
            let pause = if connecting { INTEGRATION_TIMEOUT } else { Duration::ZERO };
            self.tasks.spawn(Arc::clone(&self).deliver(id, pause));
        }
    }

    /// Answers the requests of peers.
    async fn answer(self: Arc<Self>, mut messages: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Renew { node, epoch, lease, reply } => {
                    let flows = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        let wanted = [PeerLease { node, epoch, lease }];
                        let mut answers = renew_for(flows.replica.redis(), &flows.membership, &wanted).await;
                        answers.pop().map(|answer| reply.send(answer))
                    });
                }
                Message::Push { id, reply } => _ = reply.send(self.pushed_here(&id)),
            }
        }
    }

    fn pushed_here(&self, id: &ConnectionId) -> Pushed {
        if self.registry.gate().shut_for().is_some_and(|shut| shut > Duration::from_secs(2)) {
            return Pushed::Unavailable;
        }
        match self.registry.get_open(id) {
            Some(open) if open.outbox.is_open() && self.registry.may_serve(id) => {
                let mut inner = self.world.lock();
                let now = inner.now;
                inner.judge.served(now, self.place, id);
                Pushed::Written
            }
            Some(_) => Pushed::Unavailable,
            None => self.gone(id),
        }
    }

    /// Says 410, which is true from this moment on.
    fn gone(&self, id: &ConnectionId) -> Pushed {
        self.world.lock().judge.gone(id);
        Pushed::Gone
    }

    /// Pushes to any connection, as `management` and `handle.rs` have it.
    async fn push(self: Arc<Self>) {
        loop {
            sleep(STEP * 5).await;
            let id = {
                let inner = self.world.lock();
                let all = inner.judge.connections.len().max(1);
                let number = self.random.lock().unwrap().random_range(0..all);
                inner.judge.connections.keys().nth(number).copied()
            };
            let Some(id) = id else { continue };
            self.push_to(&id).await;
            self.world.lock().judge.counts.pushes += 1;
        }
    }

    async fn push_to(&self, id: &ConnectionId) -> Pushed {
        let node = id.node();
        if node == self.registry.node() {
            return self.pushed_here(id);
        }
        for is_fresh in [false, true] {
            if is_fresh && !timeout(LEASE, self.membership.refresh()).await.unwrap_or(false) {
                return Pushed::Unavailable;
            }
            if let Some(inbox) = self.linked(&node) {
                let (reply, answer) = tokio::sync::oneshot::channel();
                let _ = inbox.send(Message::Push { id: *id, reply });
                return timeout(LEASE, answer).await.ok().and_then(Result::ok).unwrap_or(Pushed::Unavailable);
            }
            match self.membership.standing(&node, LEASE) {
                Standing::Gone => return self.gone(id),
                Standing::Known(_) => return Pushed::Unavailable,
                Standing::Unknown { settled } if is_fresh => {
                    return if settled { self.gone(id) } else { Pushed::Unavailable };
                }
                Standing::Unknown { .. } => {}
            }
        }
        Pushed::Unavailable
    }

    /// The way to a node that is linked under this id.
    fn linked(&self, node: &NodeId) -> Option<mpsc::UnboundedSender<Message>> {
        let inner = self.world.lock();
        let place = *inner.nodes.get(node)?;
        let is_linked = inner.is_linked(self.place, place) && inner.name_of(place) == Some(*node);
        is_linked.then(|| inner.places[place].inbox.clone()).flatten()
    }
}
