use std::sync::Arc;

use super::gateway::Member;
use crate::cluster::{Beat, BeatSettings, ClusterSettings, Membership, RefreshRequests};
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::redis_client::Keys;
use crate::registry::{Mirror, Registry, writer};
use crate::telemetry::Metrics;

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
        metrics.registry_state(),
    )))
}

/// Takes part in a cluster, if the registry is mirrored: writes records and beats, until the process aborts.
pub(super) fn start(
    config: &Config,
    cluster: &ClusterSettings,
    advertise: String,
    (membership, refreshes): (Arc<Membership>, RefreshRequests),
    registry: &Arc<Registry>,
    lifecycle: &Lifecycle,
) -> Option<Member> {
    let (redis, mirror) = (config.registry.redis()?, Arc::clone(registry.mirror()?));
    let settings = BeatSettings { redis, lease: cluster.lease(), advertise };
    let (beat, handle) = Beat::new(settings, Arc::clone(registry), Arc::clone(&mirror), membership, refreshes);
    lifecycle.spawn(writer::run(Arc::clone(registry), mirror, lifecycle.aborting().clone()));
    lifecycle.spawn(beat.run(lifecycle.aborting().clone()));
    Some(Member { beat: handle })
}
