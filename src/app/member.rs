use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use tidegate_access::usage::{MemoryQuotaStore, QuotaStore, RedisQuotaStore};
use tidegate_connections::cluster::{
    Heartbeat, HeartbeatHandle, HeartbeatSettings, Reaper, ReaperSettings, RefreshRequests, Times, serve_renewals,
};
use tidegate_connections::group_index::GroupIndex;
use tidegate_connections::redis_client::{AttachedRedis, Keys};
use tidegate_connections::registry::{RedisReplica, Registry, ReplicaSettings, watch_gate, writer};
use tidegate_core::id::NodeId;
use tidegate_gateway::data_plane::{DataPlane, take_over};
use tidegate_telemetry::Metrics;

/// This node's part in a cluster.
#[derive(Debug)]
pub(super) struct Member {
    heartbeat: HeartbeatHandle,
    group_index: Option<Arc<GroupIndex>>,
    quotas: Option<Arc<RedisQuotaStore>>,
}

impl Member {
    /// Writes to Redis what is not written yet, and takes this node out of the cluster.
    pub(super) async fn leave(&self) {
        if let Some(quotas) = &self.quotas {
            quotas.leave().await;
        }
        if let Some(group_index) = &self.group_index {
            group_index.leave().await;
        }
        self.heartbeat.leave().await;
    }
}

/// The store in which quotas are counted: in memory or in Redis, as the registry.
#[derive(Clone, Debug)]
pub(super) enum Quotas {
    Memory(Arc<MemoryQuotaStore>),
    Redis(Arc<RedisQuotaStore>),
}

impl Quotas {
    pub(super) fn of(redis: Option<&Arc<AttachedRedis>>) -> Self {
        match redis {
            Some(redis) => Quotas::Redis(Arc::new(RedisQuotaStore::new(Arc::clone(redis)))),
            None => Quotas::Memory(Arc::default()),
        }
    }

    pub(super) fn store(&self) -> Arc<dyn QuotaStore> {
        match self {
            Quotas::Memory(store) => Arc::clone(store) as Arc<dyn QuotaStore>,
            Quotas::Redis(store) => Arc::clone(store) as Arc<dyn QuotaStore>,
        }
    }
}

/// Creates the registry as configured: in memory alone, or with a Redis replica.
pub(super) fn registry(config: &Config, metrics: &Metrics) -> Registry {
    let settings = &config.registry;
    if settings.redis().is_none() {
        return Registry::new();
    }
    let redis = Arc::new(AttachedRedis::new(Keys::new(&settings.key_prefix), metrics.registry()));
    let replica =
        RedisReplica::new(redis, ReplicaSettings::new(settings.rebuild_per_second, settings.when_unavailable));
    let lease = config.cluster.clone().unwrap_or_default().lease();
    Registry::replicated(NodeId::random(), Times::new(lease).hold(), Arc::new(replica))
}

/// Starts the tasks of a member of a cluster, if the registry has a Redis replica. Until the process aborts, the tasks
/// write records, heartbeats and quotas, take over the connections of dead nodes, renew the leases of peers, and close
/// this node's clients when it may not serve them.
pub(super) fn start(
    config: &Config,
    plane: &Arc<DataPlane>,
    lease: Duration,
    advertise: String,
    refreshes: RefreshRequests,
    quotas: &Quotas,
) -> Option<Member> {
    let (registry, lifecycle) = (&plane.registry, &plane.lifecycle);
    let (redis, replica) = (config.registry.redis()?, Arc::clone(registry.replica()?));
    let cluster = plane.cluster.as_ref()?;
    let (links, membership) = (Arc::clone(&cluster.links), Arc::clone(&cluster.membership));
    let (times, stop) = (Times::new(lease), lifecycle.aborting());
    if let Some(renewals) = links.renewals() {
        let serve = serve_renewals(renewals, Arc::clone(replica.redis()), Arc::clone(&membership), stop.clone());
        lifecycle.spawn(serve);
    }
    let settings = HeartbeatSettings { redis: Arc::new(redis), peers: links, times, advertise, seed: rand::random() };
    let member = (Arc::clone(&membership), refreshes);
    let (heartbeat, handle) = Heartbeat::new(settings, Arc::clone(registry), Arc::clone(&replica), member);
    let settings = ReaperSettings::new(times);
    let gauge = plane.telemetry.metrics.reaping();
    let reaper = Reaper::new(settings, Arc::clone(registry), Arc::clone(replica.redis()), membership, gauge);
    lifecycle.spawn(writer::run(Arc::clone(registry), replica, stop.clone()));
    lifecycle.spawn(heartbeat.run(stop.clone()));
    lifecycle.spawn(reaper.run(stop.clone()));
    lifecycle.spawn(watch_gate(Arc::clone(registry), stop.clone()));
    if let Some(events) = registry.claims().events() {
        lifecycle.spawn(take_over(Arc::clone(plane), events));
    }
    let quotas = match quotas {
        Quotas::Redis(store) => Some(Arc::clone(store)),
        Quotas::Memory(_) => None,
    };
    if let Some(store) = &quotas {
        lifecycle.spawn(Arc::clone(store).run(stop.clone()));
    }
    let group_index = plane.group_index.clone();
    if let Some(group_index) = &group_index {
        lifecycle.spawn(Arc::clone(group_index).run(stop.clone()));
    }
    Some(Member { heartbeat: handle, group_index, quotas })
}
