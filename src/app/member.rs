use std::sync::Arc;

use super::gateway::Member;
use crate::cluster::{Beat, BeatSettings, Membership};
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
pub(super) fn start(config: &Config, registry: &Arc<Registry>, lifecycle: &Lifecycle) -> Option<Member> {
    let (redis, mirror) = (config.registry.redis()?, Arc::clone(registry.mirror()?));
    let cluster = config.cluster.clone().unwrap_or_default();
    let (membership, refreshes) = Membership::new();
    let membership = Arc::new(membership);
    let settings = BeatSettings {
        redis,
        lease: cluster.lease(),
        advertise: cluster.advertise.unwrap_or_else(|| cluster.address.to_string()),
    };
    let (beat, handle) =
        Beat::new(settings, Arc::clone(registry), Arc::clone(&mirror), Arc::clone(&membership), refreshes);
    lifecycle.spawn(writer::run(Arc::clone(registry), mirror, lifecycle.aborting().clone()));
    lifecycle.spawn(beat.run(lifecycle.aborting().clone()));
    Some(Member { beat: handle, membership })
}
