use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tracing::{info, warn};

use super::disconnect::DisconnectSettings;
use super::disconnect::queue::DisconnectQueues;
use super::disconnect::retired::Retired;
use crate::deployment::{Deployment, Deployments, Stage};
use tidegate_access::authorizer::{Access, Denial};
use tidegate_connections::cluster::Cluster;
use tidegate_connections::group_index::GroupIndex;
use tidegate_connections::groups::Groups;
use tidegate_connections::registry::{RedisReplica, Registry};
use tidegate_core::clock::Clock;
use tidegate_core::error_chain::chain;
use tidegate_core::id::EventId;
use tidegate_core::lifecycle::Lifecycle;
use tidegate_core::limits::{Addresses, Bodies, KeepAliveSettings, LimitSettings, Throttle};
use tidegate_core::request_context::{Connection, Event, RequestContext};
use tidegate_integration::IntegrationClient;
use tidegate_telemetry::{StageLabels, Telemetry};

/// Everything that a flow may use.
pub struct DataPlane {
    live: ArcSwap<Live>,
    pub registry: Arc<Registry>,
    /// The members of groups and the users of connections. They outlive reloads.
    pub groups: Arc<Groups>,
    /// The index that tells nodes of each other's `groups`; `None` without a cluster.
    pub group_index: Option<Arc<GroupIndex>>,
    pub integrations: IntegrationClient,
    pub clock: Arc<dyn Clock>,
    pub telemetry: Telemetry,
    pub lifecycle: Lifecycle,
    /// The connections and rates of each client address. They outlive reloads.
    pub addresses: Arc<Addresses>,
    /// The memory that the bodies of calls use while they are read.
    pub bodies: Bodies,
    /// The other nodes; `None` without a cluster.
    pub cluster: Option<Cluster>,
    pub(super) disconnects: DisconnectQueues,
    pub(super) retired: Retired,
}

/// The configuration in force. A reload replaces it as a whole. `settings` can also be replaced apart. `deployments` can
/// too, if they are compiled with `access`.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Number of this configuration in its process, from 1. Set when the configuration is put in force.
    pub number: u32,
    pub settings: Arc<NodeSettings>,
    /// The access control of clients and of `@connections`.
    pub access: Arc<Access>,
    pub deployments: Arc<Deployments>,
}

/// The settings of a node, which are the same for all its APIs.
#[derive(Debug, Default)]
pub struct NodeSettings {
    pub limits: LimitSettings,
    pub keep_alive: KeepAliveSettings,
    pub disconnect: DisconnectSettings,
    /// The throttle that all APIs share.
    pub throttle: Option<Throttle>,
    /// Beginning of callback URLs, without a slash at its end.
    pub callback_base_url: Option<String>,
    /// True if answers to refused clients contain the reason.
    pub explain: bool,
}

impl DataPlane {
    /// Returns a data plane without connections.
    pub fn new(
        mut live: Live,
        registry: Arc<Registry>,
        integrations: IntegrationClient,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        lifecycle: Lifecycle,
    ) -> Self {
        let disconnects = DisconnectQueues::default();
        live.number = 1;
        live.open_access_logs(&telemetry);
        registry.set_limits(&live.settings.limits);
        live.deployments.put_in_force();
        DataPlane {
            live: ArcSwap::from_pointee(live),
            registry,
            groups: Arc::default(),
            group_index: None,
            integrations,
            clock,
            telemetry,
            lifecycle,
            addresses: Arc::default(),
            bodies: Bodies::default(),
            cluster: None,
            disconnects,
            retired: Retired::default(),
        }
    }

    /// Makes this node a member of `cluster`.
    pub fn with_cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
        let group_index =
            |replica: &Arc<RedisReplica>| GroupIndex::new(Arc::clone(&self.groups), Arc::clone(replica.redis()));
        self.group_index = self.registry.replica().map(group_index).map(Arc::new);
        self
    }

    /// Waits until all nodes can find every connection that has joined a group here or was given a user.
    pub(super) async fn recorded(&self) {
        if let Some(group_index) = &self.group_index {
            group_index.recorded().await;
        }
    }

    /// Returns the configuration in force, for a short access that does not wait.
    pub fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// Returns the configuration in force, to be kept for a whole event.
    pub fn live_owned(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Puts the configuration `live` in force. Open connections stay, and their next event uses `live`; the exception
    /// is the `$disconnect` of a connection whose stage or `$disconnect` route `live` no longer has. Reloads must not
    /// overlap.
    pub fn replace(&self, mut live: Live) {
        let old = self.live_owned();
        live.number = old.number.saturating_add(1);
        live.open_access_logs(&self.telemetry);
        self.registry.set_limits(&live.settings.limits);
        self.retired.replace(&old, &live, || self.registry.stages());
        live.deployments.put_in_force();
        self.live.store(Arc::new(live));
    }
}

impl DataPlane {
    /// Returns the number of `$disconnect` events of each stage that are not delivered yet. Visits every connection.
    pub fn pending(&self) -> Vec<(StageLabels, usize)> {
        let live = self.live();
        let stages = live.deployments.iter().flat_map(|deployment| {
            let stage = |stage: &Arc<Stage>| StageLabels {
                api_id: Arc::clone(&deployment.api_id),
                stage: Arc::clone(&stage.name),
            };
            deployment.stages().map(stage).collect::<Vec<_>>()
        });
        let mut pending: HashMap<StageLabels, usize> = stages.map(|stage| (stage, 0)).collect();
        for connection in self.registry.all_ended() {
            *pending.entry(labels(&connection)).or_default() += 1;
        }
        pending.into_iter().collect()
    }
}

impl Live {
    /// Returns the stage `stage` of the API `api_id`, with the API's deployment.
    pub(super) fn stage(&self, api_id: &str, stage: &str) -> Option<(&Arc<Deployment>, &Arc<Stage>)> {
        let deployment = self.deployments.api(api_id)?;
        Some((deployment, deployment.stage(stage)?))
    }

    fn open_access_logs(&self, telemetry: &Telemetry) {
        let stages = self.deployments.iter().flat_map(|deployment| deployment.stages());
        telemetry.access_logs.open(stages.filter_map(|stage| stage.telemetry.access_log.as_ref()));
    }

    /// Returns the largest number of groups and users that a connection may have.
    pub(super) fn most_topics(&self) -> usize {
        usize::try_from(self.settings.limits.groups_per_connection).unwrap_or(usize::MAX)
    }

    /// Takes a token from the throttle that all APIs share. Returns false if there is none.
    pub(super) fn admit(&self) -> bool {
        self.settings.throttle.as_ref().is_none_or(Throttle::admit)
    }

    /// Returns the `$context` of an event on `connection`.
    pub(super) fn context<'a>(
        &self,
        plane: &DataPlane,
        deployment: &'a Deployment,
        connection: &'a Connection,
        event: Event,
        route_key: &'a str,
        request_id: EventId,
    ) -> RequestContext<'a> {
        RequestContext {
            connection,
            principal: connection.principal.load_full().map(|principal| self.access.complete(principal)),
            event,
            route_key,
            request_id,
            request_time: plane.clock.now(),
            domain_name: deployment.domain_name.as_deref().unwrap_or(&connection.host),
            callback_url: self.callback_url(connection),
            trace: None,
        }
    }

    /// Returns the complete URL to which a backend posts to reach `connection`.
    fn callback_url(&self, connection: &Connection) -> String {
        let Connection { id, api_id, stage, host, callback_secure, .. } = connection;
        match &self.settings.callback_base_url {
            Some(base) => {
                let host = base.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
                format!("{base}{}/@connections/{id}", self.deployments.stage_path(host, api_id, stage))
            }
            None => {
                let scheme = if *callback_secure { "https" } else { "http" };
                format!("{scheme}://{host}{}/@connections/{id}", self.deployments.stage_path(host, api_id, stage))
            }
        }
    }
}

/// Logs that a client or call was refused: as a warning if the operator has to correct something, otherwise as
/// information.
pub(super) fn log_denial(denial: &Denial, api_id: &str, stage: &str, what: &str) {
    log_refused(denial, denial.needs_operator(), api_id, stage, what);
}

/// Logs the error for which a client or a caller was refused: as a warning if `needs_operator`.
pub(super) fn log_refused(error: &dyn Error, needs_operator: bool, api_id: &str, stage: &str, what: &str) {
    let error = chain(error);
    if needs_operator {
        warn!(api_id, stage, %error, "{what}");
    } else {
        info!(api_id, stage, %error, "{what}");
    }
}

/// Returns the labels of all metrics of `connection`.
pub(super) fn labels(connection: &Connection) -> StageLabels {
    StageLabels { api_id: Arc::clone(&connection.api_id), stage: Arc::clone(&connection.stage) }
}
