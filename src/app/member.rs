use std::sync::Arc;
use std::time::Duration;

use crate::authorizer::{MemoryQuotaStore, QuotaStore, RedisQuotaStore};
use crate::cluster::{Beat, BeatHandle, BeatSettings, Reaper, ReaperSettings, RefreshRequests, Times, serve_renewals};
use crate::config::Config;
use crate::data_plane::{DataPlane, take_over};
use crate::id::NodeId;
use crate::redis_client::Keys;
use crate::registry::{Mirror, Registry, Roster, watch_gate, writer};
use crate::telemetry::Metrics;

/// This node's part in a cluster.
#[derive(Debug)]
pub(super) struct Member {
    beat: BeatHandle,
    roster: Option<Arc<Roster>>,
    quotas: Option<Arc<RedisQuotaStore>>,
}

impl Member {
    /// Settles what Redis has to know, and takes this node out of the cluster.
    pub(super) async fn leave(&self) {
        if let Some(quotas) = &self.quotas {
            quotas.leave().await;
        }
        if let Some(roster) = &self.roster {
            roster.leave().await;
        }
        self.beat.leave().await;
    }
}

/// Where quotas are counted: where the registry is.
#[derive(Clone, Debug)]
pub(super) enum Quotas {
    Memory(Arc<MemoryQuotaStore>),
    Redis(Arc<RedisQuotaStore>),
}

impl Quotas {
    pub(super) fn of(mirror: Option<&Arc<Mirror>>) -> Self {
        match mirror {
            Some(mirror) => Quotas::Redis(Arc::new(RedisQuotaStore::new(Arc::clone(mirror)))),
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

/// The registry as the configuration wants it: in memory alone, or mirrored.
pub(super) fn registry(config: &Config, metrics: &Metrics) -> Registry {
    let settings = &config.registry;
    if settings.redis().is_none() {
        return Registry::new();
    }
    let mirror = Mirror::new(
        Keys::new(&settings.key_prefix),
        settings.rebuild_per_second,
        settings.when_unavailable,
        metrics.registry(),
    );
    let lease = config.cluster.clone().unwrap_or_default().lease();
    Registry::mirrored(NodeId::random(), Times::new(lease).hold(), Arc::new(mirror))
}

/// Takes part in a cluster, if the registry is mirrored: writes records, beats and counts, reaps what dead nodes left, helps
/// peers, and closes its clients when it may not serve them, until the process aborts.
pub(super) fn start(
    config: &Config,
    plane: &Arc<DataPlane>,
    lease: Duration,
    advertise: String,
    refreshes: RefreshRequests,
    quotas: &Quotas,
) -> Option<Member> {
    let (registry, lifecycle) = (&plane.registry, &plane.lifecycle);
    let (redis, mirror) = (config.registry.redis()?, Arc::clone(registry.mirror()?));
    let cluster = plane.cluster.as_ref()?;
    let (links, membership) = (Arc::clone(&cluster.links), Arc::clone(&cluster.membership));
    let (times, stop) = (Times::new(lease), lifecycle.aborting());
    if let Some(renewals) = links.renewals() {
        let serve = serve_renewals(renewals, Arc::clone(&mirror), Arc::clone(&membership), stop.clone());
        lifecycle.spawn(serve);
    }
    let settings = BeatSettings { redis: Arc::new(redis), peers: links, times, advertise, seed: rand::random() };
    let member = (Arc::clone(&membership), refreshes);
    let (beat, handle) = Beat::new(settings, Arc::clone(registry), Arc::clone(&mirror), member);
    let settings = ReaperSettings::new(times);
    let gauge = plane.metrics.reaping();
    let reaper = Reaper::new(settings, Arc::clone(registry), Arc::clone(&mirror), membership, gauge);
    lifecycle.spawn(writer::run(Arc::clone(registry), mirror, stop.clone()));
    lifecycle.spawn(beat.run(stop.clone()));
    lifecycle.spawn(reaper.run(stop.clone()));
    lifecycle.spawn(watch_gate(Arc::clone(registry), stop.clone()));
    if let Some(arrivals) = registry.claims().arrivals() {
        lifecycle.spawn(take_over(Arc::clone(plane), arrivals));
    }
    let quotas = match quotas {
        Quotas::Redis(store) => Some(Arc::clone(store)),
        Quotas::Memory(_) => None,
    };
    if let Some(store) = &quotas {
        lifecycle.spawn(Arc::clone(store).run(stop.clone()));
    }
    let roster = plane.roster.clone();
    if let Some(roster) = &roster {
        lifecycle.spawn(Arc::clone(roster).run(stop.clone()));
    }
    Some(Member { beat: handle, roster, quotas })
}
