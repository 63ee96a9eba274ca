use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::registration::epoch;
use super::{HeartbeatHandle, HeartbeatSettings};
use crate::cluster::decide::{Evidence, Proof};
use crate::cluster::node_state::NodeState;
use crate::cluster::observe::Observations;
use crate::cluster::{Membership, RefreshRequests};
use crate::redis_client::RedisConnection;
use crate::registry::{RedisReplica, Registry};
use tidegate_core::error_chain::chain;
use tidegate_telemetry::RepeatedWarning;

/// Shortest time from the start of one heartbeat to the start of another that pushes ask for.
const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// Most requests for a new table that wait for one heartbeat.
const REFRESHES_MAX: usize = 1024;

/// The heartbeat of this node. [`Heartbeat::run`] is its only task.
#[derive(Debug)]
pub struct Heartbeat {
    pub(super) settings: HeartbeatSettings,
    pub(super) registry: Arc<Registry>,
    pub(super) replica: Arc<RedisReplica>,
    pub(super) membership: Arc<Membership>,
    refreshes: RefreshRequests,
    commands: mpsc::Receiver<oneshot::Sender<()>>,
    pub(super) connection: Option<RedisConnection>,
    /// Number of connections to Redis that were opened so far.
    pub(super) serial: u64,
    pub(super) state: NodeState,
    pub(super) random: StdRng,
    pub(super) observations: Observations,
    /// Buckets whose number of records was wrong at the last look, as bits.
    pub(super) differing: u16,
    /// Warnings that were logged already.
    pub(super) warned: HashSet<String>,
    /// The warning that Redis cannot be used.
    failed: RepeatedWarning,
    /// The warning that silent nodes cannot be declared dead.
    pub(super) condemning: RepeatedWarning,
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
            state: NodeState::new(epoch(&mut random)),
            random,
            settings,
            registry,
            replica,
            membership,
            refreshes,
            commands,
            connection: None,
            serial: 0,
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
    pub(super) async fn heartbeat(&mut self) -> bool {
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
                self.state.on_failed();
                self.differing = 0;
                self.observations.interrupt();
                self.publish();
                self.replica.detach(why);
                if self.state.is_registered() {
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
            Some(repeated) if self.state.is_registered() => {
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
            self.settings.peers.renew(self.state.epoch(), times.lease(), within),
            self.settings.redis.reach(within),
            self.settings.peers.reach(within),
        );
        let evidence = Evidence { relayed: &relayed, redis, peers: &peers };
        let gate = self.registry.gate();
        let proof = self.state.proof(&evidence, gate.is_open());
        debug!(?proof, ?evidence, "Redis does not answer; looked for proof of life elsewhere");
        match proof {
            Proof::Renewed => gate.open_until(sent + times.proven()),
            Proof::RedisIsAway | Proof::PeerIsDetached | Proof::Alone => gate.prolong_until(sent + times.proven()),
            Proof::Fenced { found, run_id } => self.fence(found, &run_id),
            Proof::None => {}
        }
    }
}
