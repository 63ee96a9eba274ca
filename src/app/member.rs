use std::sync::Arc;

use crate::authorizer::{MemoryQuotaStore, QuotaStore, RedisQuotaStore};
use crate::cluster::{Beat, BeatHandle, BeatSettings, ClusterSettings, Membership, RefreshRequests};
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::redis_client::Keys;
use crate::registry::{Mirror, Registry, writer};
use crate::telemetry::Metrics;

/// This node's part in a cluster.
#[derive(Debug)]
pub(super) struct Member {
    beat: BeatHandle,
    quotas: Option<Arc<RedisQuotaStore>>,
}

impl Member {
    /// Settles what Redis has to know, and takes this node out of the cluster.
    pub(super) async fn leave(&self) {
        if let Some(quotas) = &self.quotas {
            quotas.leave().await;
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
    Registry::mirrored(Arc::new(Mirror::new(
        Keys::new(&settings.key_prefix),
        settings.rebuild_per_second,
        settings.when_unavailable,
        metrics.registry(),
    )))
}

/// Takes part in a cluster, if the registry is mirrored: writes records, beats and counts, until the process aborts.
pub(super) fn start(
    config: &Config,
    cluster: &ClusterSettings,
    advertise: String,
    (membership, refreshes): (Arc<Membership>, RefreshRequests),
    registry: &Arc<Registry>,
    quotas: &Quotas,
    lifecycle: &Lifecycle,
) -> Option<Member> {
    let (redis, mirror) = (config.registry.redis()?, Arc::clone(registry.mirror()?));
    let settings = BeatSettings { redis, lease: cluster.lease(), advertise };
    let (beat, handle) = Beat::new(settings, Arc::clone(registry), Arc::clone(&mirror), membership, refreshes);
    lifecycle.spawn(writer::run(Arc::clone(registry), mirror, lifecycle.aborting().clone()));
    lifecycle.spawn(beat.run(lifecycle.aborting().clone()));
    let quotas = match quotas {
        Quotas::Redis(store) => Some(Arc::clone(store)),
        Quotas::Memory(_) => None,
    };
    if let Some(store) = &quotas {
        lifecycle.spawn(Arc::clone(store).run(lifecycle.aborting().clone()));
    }
    Some(Member { beat: handle, quotas })
}
