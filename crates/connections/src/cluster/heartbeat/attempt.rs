//! An attempt to reach Redis: it connects, registers, surveys, and acts on the answers.

use thiserror::Error;
use tokio::time::Instant;
use tracing::warn;

use super::Heartbeat;
use super::registration::epoch;
use crate::cluster::decide::{RenewalOutcome, drifted};
use crate::cluster::observe::LookTimes;
use crate::cluster::survey::{Survey, SurveyError, look_at, survey};
use crate::cluster::{ClusterMember, NodeTable};
use crate::redis_client::{Attachment, BUCKETS, NodeKey, RedisConnection, RedisError, read, server_info};
use tidegate_core::id::NodeId;

/// Most steps of one heartbeat. Registering, registering anew after Redis has forgotten this node, and taking another
/// id after having been fenced are one step each.
const STEPS_MAX: usize = 4;

/// Most warnings that are remembered, so that they are not logged again.
const WARNINGS_MAX: usize = 1024;

#[derive(Debug, Error)]
pub(super) enum HeartbeatError {
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
    pub(super) fn is_timeout(&self) -> bool {
        matches!(
            self,
            HeartbeatError::Connect { source: RedisError::TimedOut, .. }
                | HeartbeatError::Register(RedisError::TimedOut)
                | HeartbeatError::Survey(SurveyError::Redis(RedisError::TimedOut))
        )
    }
}

impl Heartbeat {
    pub(super) async fn attempt(&mut self) -> Result<(), HeartbeatError> {
        let connection = self.connect().await?;
        for _ in 0..STEPS_MAX {
            if !self.state.is_registered() && !self.register(&connection).await? {
                continue;
            }
            let keys = self.replica.keys();
            let (node, sent) = (self.registry.node(), Instant::now());
            let counts = self.replica.settled_counts();
            let (lease, known) = (self.settings.times.lease(), self.observations.known());
            let survey = survey(&connection, keys, node, self.state.epoch(), lease, &known).await;
            let looked = LookTimes { sent, answered: Instant::now() };
            self.replica.redis().metrics().took("survey", looked.answered - sent);
            let survey = survey.map_err(HeartbeatError::Survey)?;
            let draw = || epoch(&mut self.random);
            match self.state.on_renewal(&survey.renewal, self.registry.gate().is_open(), draw) {
                RenewalOutcome::Renewed => {
                    self.registry.gate().open_until(sent + self.settings.times.proven());
                    return self.renewed(&connection, survey, counts, looked).await;
                }
                RenewalOutcome::Forgotten => {
                    warn!(%node, "Redis has forgotten this node; registering anew and writing its records back");
                    self.observations.interrupt();
                }
                RenewalOutcome::RolledBack { .. } => self.rolled_back(),
                RenewalOutcome::Fenced { found } => self.fence(found, &survey.run_id),
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
        self.state.on_connected();
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
        let info = server_info::ask(connection, self.replica.keys(), self.registry.node(), "memory");
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
        if self.state.on_attached(survey.run_id, looked.sent) {
            warn!("Redis was restarted or has failed over; reconciling all records");
        }
        let times = self.settings.times;
        let looked = LookTimes { answered: Instant::now(), ..looked };
        self.observations.note(looked, &survey.index, &survey.looks, times.watch(), times.slack());
        self.condemn(connection, looked.sent).await;
        self.publish();

        let (connection, epoch) = (connection.clone(), self.state.epoch());
        let attachment = Attachment { connection, node, epoch, serial: self.serial };
        self.replica.attach(attachment, self.state.take_forgotten());
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

    pub(super) fn publish(&mut self) {
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
            attached_since: self.state.attached_since(),
        });
    }
}
