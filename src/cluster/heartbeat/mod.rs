//! The heartbeat: this node's periodic exchange with Redis. It registers the node, renews its lease, looks at the other
//! nodes, attaches the Redis replica ([`RedisReplica`]) and fills the table of members. Nothing else connects to Redis
//! or reconnects.

mod condemn;
mod registration;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::decide::{Evidence, Proof, RenewalOutcome, after_renew, drifted, proof};
use super::observe::{LookTimes, Observations};
use super::survey::{Survey, SurveyError, look_at, survey};
use super::{ClusterMember, Membership, NodeKey, NodeTable, Peers, RefreshRequests, Times};
use crate::error_chain::chain;
use crate::id::NodeId;
use crate::redis_client::{BUCKETS, Redis, RedisConnection, RedisError, read, scripts};
use crate::registry::{Attachment, RedisReplica, Registry};
use crate::telemetry::RepeatedWarning;

/// Most steps of one heartbeat. Registering, registering anew after Redis has forgotten this node, and taking another
/// id after having been fenced are one step each.
const STEPS_MAX: usize = 4;

/// Shortest time from the start of one heartbeat to the start of another that pushes ask for.
const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// Most requests for a new table that wait for one heartbeat.
const REFRESHES_MAX: usize = 1024;

/// Most warnings that are remembered, so that they are not logged again.
const WARNINGS_MAX: usize = 1024;

/// Everything that the heartbeat is given.
#[derive(Debug)]
pub struct HeartbeatSettings {
    pub redis: Arc<dyn Redis>,
    /// The other nodes, which renew this node's lease while Redis does not answer.
    pub peers: Arc<dyn Peers>,
    pub times: Times,
    /// Seed of the random numbers for node ids, epochs and jitter.
    pub seed: u64,
    /// Host and port at which peers reach this node.
    pub advertise: String,
}

/// A handle on the running heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatHandle(mpsc::Sender<oneshot::Sender<()>>);

impl HeartbeatHandle {
    /// Writes what is still to be written and takes this node out of the cluster. Nothing of the node remains in Redis,
    /// unless it has connections whose `$disconnect` was not delivered: those are left to other nodes.
    pub async fn leave(&self) {
        let (left, done) = oneshot::channel();
        if self.0.send(left).await.is_ok() {
            let _ = done.await;
        }
    }
}

/// The heartbeat of this node. [`Heartbeat::run`] is its only task.
#[derive(Debug)]
pub struct Heartbeat {
    settings: HeartbeatSettings,
    registry: Arc<Registry>,
    replica: Arc<RedisReplica>,
    membership: Arc<Membership>,
    refreshes: RefreshRequests,
    commands: mpsc::Receiver<oneshot::Sender<()>>,
    connection: Option<RedisConnection>,
    /// Number of connections to Redis that were opened so far.
    serial: u64,
    /// The epoch in the node key, or the one to register next.
    epoch: u64,
    former: Vec<u64>,
    random: StdRng,
    is_registered: bool,
    /// Set when Redis may have lost what it acknowledged and the Redis replica does not know yet.
    forgotten: bool,
    /// Run id of the Redis server; empty if the Redis user may not run `INFO`.
    run_id: Option<String>,
    attached_since: Option<Instant>,
    observations: Observations,
    /// Buckets whose number of records was wrong at the last look, as bits.
    differing: u16,
    /// Warnings that were logged already.
    warned: HashSet<String>,
    /// The warning that Redis cannot be used.
    failed: RepeatedWarning,
    /// The warning that silent nodes cannot be declared dead.
    condemning: RepeatedWarning,
}

#[derive(Debug, Error)]
enum HeartbeatError {
    #[error("could not connect to Redis at {address}")]
    Connect {
        address: String,
        #[source]
        source: RedisError,
    },
    #[error("could not register this node")]
    Register(#[source] RedisError),
    #[error("could not renew the lease and look at the other nodes")]
    Survey(#[source] SurveyError),
    #[error("Redis gave another answer at each step")]
    Unsettled,
}

impl HeartbeatError {
    fn is_timeout(&self) -> bool {
        matches!(
            self,
            HeartbeatError::Connect { source: RedisError::TimedOut, .. }
                | HeartbeatError::Register(RedisError::TimedOut)
                | HeartbeatError::Survey(SurveyError::Redis(RedisError::TimedOut))
        )
    }
}

impl Heartbeat {
    /// Returns a heartbeat that has not begun, and a handle on it. `registry` has the Redis replica `replica`.
    pub fn new(
        settings: HeartbeatSettings,
        registry: Arc<Registry>,
        replica: Arc<RedisReplica>,
        (membership, refreshes): (Arc<Membership>, RefreshRequests),
    ) -> (Self, HeartbeatHandle) {
        let (sender, commands) = mpsc::channel(1);
        let mut random = StdRng::seed_from_u64(settings.seed);
        let heartbeat = Heartbeat {
            epoch: registration::epoch(&mut random),
            random,
            settings,
            registry,
            replica,
            membership,
            refreshes,
            commands,
            connection: None,
            serial: 0,
            former: Vec::new(),
            is_registered: false,
            forgotten: false,
            run_id: None,
            attached_since: None,
            observations: Observations::default(),
            differing: 0,
            warned: HashSet::new(),
            failed: RepeatedWarning::default(),
            condemning: RepeatedWarning::default(),
        };
        (heartbeat, HeartbeatHandle(sender))
    }

    /// Runs heartbeats until `stop`, or until the node has left.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut next = Instant::now();
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        let replica = Arc::clone(&self.replica);
        let mut began = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = self.commands.recv() => {
                    self.leave().await;
                    // The caller of `leave` may have given up waiting.
                    let _ = done.send(());
                    return;
                }
                () = replica.failed() => {
                    next = next.min(Instant::now() + self.retry_interval());
                    continue;
                }
                Some(request) = self.refreshes.recv(), if waiting.len() < REFRESHES_MAX => {
                    waiting.push(request);
                    next = next.min(began.map_or_else(Instant::now, |began| began + REFRESH_INTERVAL));
                    continue;
                }
                () = sleep_until(next) => {}
            }
            let now = Instant::now();
            began = Some(now);
            while waiting.len() < REFRESHES_MAX
                && let Ok(request) = self.refreshes.try_recv()
            {
                waiting.push(request);
            }
            let is_attached = self.heartbeat().await;
            // After a failure the requests are dropped, which tells their callers.
            let waiting = std::mem::take(&mut waiting);
            if is_attached {
                waiting.into_iter().for_each(|refreshed| {
                    let _ = refreshed.send(());
                });
            }
            let interval = if is_attached { self.settings.times.heartbeat() } else { self.retry_interval() };
            next = now + interval.mul_f64(0.9 + 0.1 * self.random.random::<f64>());
        }
    }

    /// Returns the time between two tries while Redis is away. It is shorter than the time between heartbeats.
    fn retry_interval(&self) -> Duration {
        self.settings.times.retry()
    }

    /// Runs one heartbeat. The outcome is in the state of the Redis replica and in the table of members. Returns true
    /// if this node is attached.
    async fn heartbeat(&mut self) -> bool {
        let was_connected = self.connection.is_some();
        let mut outcome = self.attempt().await;
        if was_connected && outcome.as_ref().is_err_and(|error| !error.is_timeout()) {
            // Perhaps only the connection broke: a new one at once may do, and then nobody notices the break. After a
            // timeout a second try would only take as long again.
            self.connection = None;
            outcome = self.attempt().await;
        }
        match outcome {
            Ok(()) => {
                self.failed.over();
                true
            }
            Err(error) => {
                let why = chain(&error).to_string();
                self.warn(&why);
                self.connection = None;
                self.attached_since = None;
                self.differing = 0;
                self.observations.interrupt();
                self.publish();
                self.replica.detach(why);
                if self.is_registered {
                    self.ask_others().await;
                }
                false
            }
        }
    }

    /// Logs why Redis cannot be used: at once, when the cause changes, and once a minute.
    fn warn(&self, why: &str) {
        let redis = self.settings.redis.address();
        match self.failed.due(why) {
            None => debug!(redis, error = why, "the heartbeat failed; trying again soon"),
            Some(repeated) if self.is_registered => {
                warn!(
                    redis,
                    error = why,
                    repeated,
                    "Redis cannot be used; serving clients without it and trying again"
                );
            }
            Some(repeated) => warn!(
                redis,
                error = why,
                repeated,
                "Redis cannot be used; this node takes no clients until it is registered there; trying again"
            ),
        }
    }

    /// Looks for proof of life elsewhere, because Redis does not answer, and extends the serving lease by what it
    /// finds: peers are asked to renew the lease, and the addresses of Redis and of the peers are tried.
    async fn ask_others(&mut self) {
        let (sent, times) = (Instant::now(), self.settings.times);
        let within = times.operation();
        let (relayed, redis, peers) = tokio::join!(
            self.settings.peers.renew(self.epoch, times.lease(), within),
            self.settings.redis.reach(within),
            self.settings.peers.reach(within),
        );
        let evidence = Evidence { relayed: &relayed, redis, peers: &peers };
        let gate = self.registry.gate();
        let proof = proof(&evidence, &self.former, gate.is_open());
        debug!(?proof, ?evidence, "Redis does not answer; looked for proof of life elsewhere");
        match proof {
            Proof::Renewed => gate.open_until(sent + times.proven()),
            Proof::RedisIsAway | Proof::PeerIsDetached | Proof::Alone => gate.prolong_until(sent + times.proven()),
            Proof::Fenced { found, run_id } => self.fence(&found, &run_id),
            Proof::None => {}
        }
    }

    async fn attempt(&mut self) -> Result<(), HeartbeatError> {
        let connection = self.connect().await?;
        for _ in 0..STEPS_MAX {
            if !self.is_registered && !self.register(&connection).await? {
                continue;
            }
            let keys = self.replica.keys();
            let (node, sent) = (self.registry.node(), Instant::now());
            let counts = self.replica.settled_counts();
            let (lease, known) = (self.settings.times.lease(), self.observations.known());
            let survey = survey(&connection, keys, node, self.epoch, lease, &known).await;
            let looked = LookTimes { sent, answered: Instant::now() };
            self.replica.metrics().took("survey", looked.answered - sent);
            let survey = survey.map_err(HeartbeatError::Survey)?;
            match after_renew(&survey.renewal, &self.former, self.registry.gate().is_open()) {
                RenewalOutcome::Renewed => {
                    self.registry.gate().open_until(sent + self.settings.times.proven());
                    return self.renewed(&connection, survey, counts, looked).await;
                }
                RenewalOutcome::Forgotten => {
                    warn!(%node, "Redis has forgotten this node; registering anew and writing its records back");
                    self.new_epoch();
                }
                RenewalOutcome::RolledBack { epoch } => self.rolled_back(epoch),
                RenewalOutcome::Fenced => self.fence(&survey.renewal, &survey.run_id),
                RenewalOutcome::Unexpected => {
                    return Err(HeartbeatError::Survey(SurveyError::Redis(RedisError::Unexpected)));
                }
            }
        }
        Err(HeartbeatError::Unsettled)
    }

    async fn connect(&mut self) -> Result<RedisConnection, HeartbeatError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let within = self.settings.times.operation();
        let connection = self.settings.redis.open(within).await.map_err(|error| self.connect_error(error))?;
        self.serial += 1;
        if self.run_id.as_ref().is_some_and(String::is_empty) {
            // Without `INFO` this may be another run of the server.
            self.forgotten = true;
        }
        // The last writes on the old connection may be lost. The new serial makes the Redis replica reconcile all
        // records, and every watch of another node begins anew, as after every break.
        self.observations.interrupt();
        self.check_policy(&connection).await?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    fn connect_error(&self, source: RedisError) -> HeartbeatError {
        HeartbeatError::Connect { address: self.settings.redis.address(), source }
    }

    async fn check_policy(&mut self, connection: &RedisConnection) -> Result<(), HeartbeatError> {
        let info = scripts::info(connection, self.replica.keys(), self.registry.node(), "memory");
        let info: String = match connection.run_one(info).await.and_then(read) {
            Ok(info) => info,
            Err(RedisError::Denied(_)) => {
                connection.hide_info();
                if self.warned.insert("INFO".to_owned()) {
                    warn!(
                        redis = self.settings.redis.address(),
                        "the Redis user may not run INFO: `maxmemory-policy` is not checked, and each new connection \
                         counts as a restart of Redis; to change that, give the user `+info`"
                    );
                }
                return Ok(());
            }
            Err(error) => return Err(self.connect_error(error)),
        };
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).unwrap_or("noeviction");
        if policy != "noeviction" && self.warned.insert(policy.to_owned()) {
            warn!(
                policy,
                "Redis may evict records when its memory is full, and connections without a record get no $disconnect \
                 if their node dies; set `maxmemory-policy noeviction`"
            );
        }
        Ok(())
    }

    /// Acts on `survey`, which has renewed the lease: notes the other nodes, condemns the silent ones, publishes the
    /// table and attaches the Redis replica.
    async fn renewed(
        &mut self,
        connection: &RedisConnection,
        mut survey: Survey,
        counts: Option<[usize; BUCKETS]>,
        looked: LookTimes,
    ) -> Result<(), HeartbeatError> {
        let node = self.registry.node();
        if survey.index.remove(&node).is_none() {
            // Another node or an operator removed this node's entry from the index.
            let index = self.index_entry(self.replica.keys(), node);
            connection.run_one(index).await.map_err(HeartbeatError::Register)?;
            self.observations.interrupt();
        }
        let new: Vec<NodeId> = survey.index.keys().filter(|node| !survey.looks.contains_key(node)).copied().collect();
        if !new.is_empty() {
            let looks = look_at(connection, self.replica.keys(), &new).await.map_err(HeartbeatError::Survey)?;
            survey.looks.extend(looks);
        }
        for (node, why) in &survey.unreadable {
            if self.warned.insert(node.clone()) {
                warn!(node, error = why, "could not read the entry of a node in the index; ignoring the node");
            }
        }
        if let Some(known) = self.run_id.as_ref().filter(|known| **known != survey.run_id) {
            if !known.is_empty() && !survey.run_id.is_empty() {
                warn!("Redis was restarted or has failed over; reconciling all records");
            }
            self.forgotten = true;
        }
        self.run_id = Some(survey.run_id);
        let times = self.settings.times;
        let looked = LookTimes { answered: Instant::now(), ..looked };
        self.observations.note(looked, &survey.index, &survey.looks, times.watch(), times.slack());
        self.attached_since.get_or_insert(looked.sent);
        self.condemn(connection, looked.sent).await;
        self.publish();

        let attachment = Attachment { connection: connection.clone(), node, epoch: self.epoch, serial: self.serial };
        self.replica.attach(attachment, std::mem::take(&mut self.forgotten));
        self.compare_counts(counts, &survey.counts);
        Ok(())
    }

    /// Finds records that came or went in Redis without this node's doing: reconciles the buckets whose number of
    /// records is wrong at two looks in a row. `before` is what the registry held before the look, and `there` is what
    /// Redis counted. A look counts only if nothing was on its way to Redis before and after it, and no number changed
    /// in between.
    fn compare_counts(&mut self, before: Option<[usize; BUCKETS]>, there: &[usize]) {
        let now = match (before, self.replica.settled_counts()) {
            (Some(before), Some(after)) if before == after => {
                let differs = |bucket: &usize| there.get(*bucket) != Some(&before[*bucket]);
                (0..before.len()).filter(differs).fold(0, |bits: u16, bucket| bits | 1 << bucket)
            }
            _ => 0,
        };
        let drifted = drifted(self.differing, now);
        if drifted != 0 {
            warn!(buckets = drifted.count_ones(), "Redis has more or fewer records than this node; reconciling them");
            self.replica.reconcile(drifted);
        }
        self.differing = now & !drifted;
    }

    fn publish(&mut self) {
        if self.warned.len() > WARNINGS_MAX {
            // Rather log a warning twice than remember it for ever.
            self.warned.clear();
        }
        let members = self.observations.members();
        for member in members.values() {
            if member.advertise == self.settings.advertise
                && matches!(member.key, NodeKey::Live { .. })
                && member.lease_alive
                && self.warned.insert(format!("advertise {}", member.node))
            {
                let ClusterMember { node, advertise, .. } = member;
                warn!(
                    other = %node, advertise,
                    "another node announces the same address, so peers reach only one of the two; unless it is this \
                     node before a restart, give each node its own `cluster.advertise`"
                );
            }
        }
        self.membership.replace(NodeTable {
            members,
            departed: self.observations.departed(),
            dead: self.observations.dead(),
            attached_since: self.attached_since,
        });
    }
}
