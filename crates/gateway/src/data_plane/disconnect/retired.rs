//! Configurations that are no longer in force, for the `$disconnect` events of connections whose stage or route a
//! reload removed.
//!
//! The configuration in force decides which backend gets a `$disconnect`. If it has no `$disconnect` route for the
//! stage, the last configuration that had one decides, for connections that were admitted under it or earlier.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::warn;

use crate::data_plane::context::labels;
use crate::data_plane::{DataPlane, Live};
use crate::deployment::{Deployment, Route, Stage};
use tidegate_core::lock::lock;
use tidegate_core::request_context::Connection;
use tidegate_telemetry::StageLabels;

/// Largest number of stages without a connection on this node whose last configuration is kept: a dead node may leave
/// connections of them. The oldest is removed first.
const KEPT_MAX: usize = 100;

/// The configuration and the route by which a `$disconnect` is sent.
#[derive(Clone, Debug)]
pub(in crate::data_plane) struct DisconnectRoute {
    pub(in crate::data_plane) live: Arc<Live>,
    pub(in crate::data_plane) deployment: Arc<Deployment>,
    pub(in crate::data_plane) stage: Arc<Stage>,
    pub(in crate::data_plane) route: Arc<Route>,
}

/// The receiver of a connection's `$disconnect`.
#[derive(Clone, Debug)]
pub(in crate::data_plane) enum Receiver {
    /// A backend, by this route.
    Backend(DisconnectRoute),
    /// No backend: the stage has no `$disconnect` route, and had none while the connection existed.
    Nobody,
    /// Unknown: the connection is of another node, and no configuration of this node ever had its stage.
    Unknown,
}

/// The last configuration with a `$disconnect` route, for each stage that has lost its own.
#[derive(Debug, Default)]
pub(in crate::data_plane) struct Retired {
    stages: Mutex<HashMap<StageLabels, Arc<Live>>>,
    /// Unknown stages that were logged since the last reload.
    told: Mutex<HashSet<StageLabels>>,
}

impl Retired {
    /// Notes that `new` replaces `old`. `connections` returns the stages of all connections of this node, each with the
    /// number of the oldest configuration that admitted one of its connections.
    pub(in crate::data_plane) fn replace(
        &self,
        old: &Arc<Live>,
        new: &Live,
        connections: impl FnOnce() -> HashMap<StageLabels, u32>,
    ) {
        lock(&self.told).clear();
        let mut stages = self.stages();
        for deployment in old.deployments.iter() {
            for stage in deployment.stages().filter(|stage| stage.disconnect.is_some()) {
                let (api_id, stage) = (Arc::clone(&deployment.api_id), Arc::clone(&stage.name));
                stages.insert(StageLabels { api_id, stage }, Arc::clone(old));
            }
        }
        stages.retain(|StageLabels { api_id, stage }, _| {
            new.stage(api_id, stage).is_none_or(|(_, stage)| stage.disconnect.is_none())
        });
        if stages.len() <= KEPT_MAX {
            return;
        }
        let connections = connections();
        let is_needed =
            |stage: &StageLabels, live: &Live| connections.get(stage).is_some_and(|oldest| *oldest <= live.number);
        let mut idle: Vec<_> = stages.iter().filter(|(stage, live)| !is_needed(stage, live)).collect();
        idle.sort_by_key(|(_, live)| live.number);
        let gone: Vec<StageLabels> =
            idle.iter().take(stages.len() - KEPT_MAX).map(|(stage, _)| StageLabels::clone(stage)).collect();
        for stage in gone {
            stages.remove(&stage);
        }
    }

    /// Returns the last configuration that had a `$disconnect` route for the stage of `connection`, if the connection
    /// was admitted under it or earlier.
    fn of(&self, connection: &Connection) -> Option<Arc<Live>> {
        self.stages().get(&labels(connection)).filter(|live| connection.configuration <= live.number).cloned()
    }

    /// Returns true if it was not logged yet that `stage` is unknown, and notes that it is logged now. At most
    /// [`KEPT_MAX`] stages are logged between two reloads.
    fn is_news(&self, stage: &StageLabels) -> bool {
        let mut told = lock(&self.told);
        told.len() < KEPT_MAX && told.insert(stage.clone())
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<StageLabels, Arc<Live>>> {
        lock(&self.stages)
    }
}

impl DataPlane {
    /// Returns the receiver of the `$disconnect` of `connection`, while `live` is in force.
    pub(in crate::data_plane) fn receiver_of(&self, live: &Arc<Live>, connection: &Connection) -> Receiver {
        let is_known = live.stage(&connection.api_id, &connection.stage).is_some();
        if let Some(way) = DisconnectRoute::of(Arc::clone(live), connection) {
            return Receiver::Backend(way);
        }
        match self.retired.of(connection).and_then(|live| DisconnectRoute::of(live, connection)) {
            Some(way) => Receiver::Backend(way),
            None if is_known || connection.configuration > 0 => Receiver::Nobody,
            None => Receiver::Unknown,
        }
    }

    /// Counts and logs that the `$disconnect` of another node's connection is lost, because this node does not know its
    /// stage.
    pub(in crate::data_plane) fn lost_unknown(&self, connection: &Connection) {
        let stage = labels(connection);
        if self.retired.is_news(&stage) {
            warn!(
                connection_id = %connection.id, api_id = &*connection.api_id, stage = &*connection.stage,
                "the $disconnect of a dead node's connection is lost: the configuration of this node has no such API \
                 or stage; give all nodes the same configuration. Further losses of this stage are only counted in \
                 tidegate_disconnect_events_lost_total"
            );
        }
        self.telemetry.metrics.disconnect_lost(&stage);
    }
}

impl DisconnectRoute {
    fn of(live: Arc<Live>, connection: &Connection) -> Option<Self> {
        let (deployment, stage) = live.stage(&connection.api_id, &connection.stage)?;
        let (deployment, stage, route) = (Arc::clone(deployment), Arc::clone(stage), stage.disconnect.clone()?);
        Some(DisconnectRoute { live, deployment, stage, route })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::deployment::{CompileContext, Deployments};
    use tidegate_access::authorizer::{Access, Mechanisms};
    use tidegate_core::clock::Timestamp;
    use tidegate_core::id::{ConnectionId, NodeId};
    use tidegate_core::limits::LimitSettings;
    use tidegate_http::http_client::HttpClient;

    /// Returns the configuration with this `number` and these `stages`.
    fn live(number: u32, stages: &[String]) -> Arc<Live> {
        let stages: BTreeMap<&str, serde_json::Value> =
            stages.iter().map(|stage| (stage.as_str(), serde_json::json!({}))).collect();
        let api = serde_json::json!({
            "routeSelectionExpression": "$request.body.action",
            "integrations": { "backend": { "integrationType": "AWS_PROXY", "integrationUri": "http://127.0.0.1:9/" } },
            "routes": { "$disconnect": { "target": "integrations/backend" } },
            "stages": stages,
        });
        let apis = BTreeMap::from([("chat".to_owned(), serde_json::from_value(api).unwrap())]);
        let mechanisms = Mechanisms::alone(HttpClient::new(TaskTracker::new()), TaskTracker::new());
        let (limits, access) = (LimitSettings::default(), Access::default());
        let context = CompileContext { limits: &limits, access: &access, mechanisms: &mechanisms };
        let compiled = Deployments::compile(&apis, &BTreeMap::new(), context);
        Arc::new(Live { number, deployments: Arc::new(compiled.unwrap()), ..Live::default() })
    }

    fn connection(stage: &str, configuration: u32) -> Connection {
        let sample = Connection::sample(ConnectionId::random(NodeId::random()));
        Connection { stage: stage.into(), configuration, connected_at: Timestamp(0), ..sample }
    }

    #[tokio::test]
    async fn however_many_stages_are_taken_away_those_with_connections_are_remembered() {
        let retired = Retired::default();
        let number_of =
            |stage: &str, configuration| retired.of(&connection(stage, configuration)).map(|live| live.number);
        // Each reload removes the only stage and adds another one.
        let names: Vec<String> = (0..150).map(|number| format!("stage-{number}")).collect();
        for (number, stage) in (1..).zip(&names) {
            let needed = |stage: &str, oldest| (StageLabels { api_id: "chat".into(), stage: stage.into() }, oldest);
            // One client is on the first stage. Another connected to the second after that had lost its route.
            let connections = || HashMap::from([needed("stage-0", 1), needed("stage-1", 99)]);
            retired.replace(&live(number, std::slice::from_ref(stage)), &live(number + 1, &[]), connections);
        }
        assert_eq!(retired.stages().len(), KEPT_MAX);
        assert_eq!(number_of("stage-0", 1), Some(1));
        assert_eq!(number_of("stage-0", 2), None, "it was admitted when there was no such route");
        assert_eq!(number_of("stage-1", 2), None, "the oldest go");
        assert_eq!((number_of("stage-149", 0), number_of("stage-149", 150)), (Some(150), Some(150)));
        // The stage exists again, so the configuration in force decides.
        retired.replace(&live(151, &[]), &live(152, &["stage-0".to_owned()]), HashMap::new);
        assert_eq!(number_of("stage-0", 1), None);
    }
}
