//! Configurations that are no longer in force, for the `$disconnect` events of connections whose stage or route a reload
//! took away.
//!
//! The configuration in force tells a backend of the end of a connection. Where its stage has no `$disconnect` route any
//! more, the last configuration does that had one, for connections that were admitted by then.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::warn;

use super::context::labels;
use super::{DataPlane, Live};
use crate::deployment::{Deployment, Route, Stage};
use crate::lock::lock;
use crate::request_context::Connection;
use crate::telemetry::StageLabels;

/// Stages of which no connection of this node is left and whose last configuration is kept all the same: a node that dies
/// may leave some. The oldest goes first.
const KEPT_MAX: usize = 100;

/// By what configuration a backend is told of the end of a connection, and by which route.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) live: Arc<Live>,
    pub(super) deployment: Arc<Deployment>,
    pub(super) stage: Arc<Stage>,
    pub(super) route: Arc<Route>,
}

/// What becomes of the end of a connection.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// A backend is told.
    By(Way),
    /// Its stage has no `$disconnect` route, and had none while it was connected.
    Nobody,
    /// It is of another node, and no configuration of this one ever had its stage.
    Unknown,
}

/// The last configuration of each stage that has lost its `$disconnect` route.
#[derive(Debug, Default)]
pub(super) struct Retired {
    stages: Mutex<HashMap<StageLabels, Arc<Live>>>,
    /// Stages that nobody knows, of which the operator was told since the last reload.
    told: Mutex<HashSet<StageLabels>>,
}

impl Retired {
    /// `new` takes the place of `old`. `connections` gives the stages of all connections of this node, and the number of
    /// the oldest configuration that one of each was admitted by.
    pub(super) fn replace(&self, old: &Arc<Live>, new: &Live, connections: impl FnOnce() -> HashMap<StageLabels, u32>) {
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

    /// The last configuration that had a `$disconnect` route for this connection's stage, if it was admitted by then.
    fn of(&self, connection: &Connection) -> Option<Arc<Live>> {
        self.stages().get(&labels(connection)).filter(|live| connection.configuration <= live.number).cloned()
    }

    /// Whether the operator has not been told yet that this stage is unknown.
    fn is_news(&self, stage: &StageLabels) -> bool {
        let mut told = lock(&self.told);
        told.len() < KEPT_MAX && told.insert(stage.clone())
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<StageLabels, Arc<Live>>> {
        lock(&self.stages)
    }
}

impl Live {
    /// A stage and its API.
    pub(super) fn stage(&self, api_id: &str, stage: &str) -> Option<(&Arc<Deployment>, &Arc<Stage>)> {
        let deployment = self.deployments.api(api_id)?;
        Some((deployment, deployment.stage(stage)?))
    }
}

impl DataPlane {
    /// Who is told of the end of a connection.
    pub(super) fn told_of(&self, connection: &Connection) -> Told {
        let live = self.live_owned();
        let is_known = live.stage(&connection.api_id, &connection.stage).is_some();
        if let Some(way) = Way::of(live, connection) {
            return Told::By(way);
        }
        match self.retired.of(connection).and_then(|live| Way::of(live, connection)) {
            Some(way) => Told::By(way),
            None if is_known || connection.configuration > 0 => Told::Nobody,
            None => Told::Unknown,
        }
    }

    /// A connection of another node has ended whose stage this node does not know: the event is lost.
    pub(super) fn lost_unknown(&self, connection: &Connection) {
        let stage = labels(connection);
        if self.retired.is_news(&stage) {
            warn!(
                connection_id = %connection.id, api_id = &*connection.api_id, stage = &*connection.stage,
                "the $disconnect of a dead node's connection is lost: the configuration of this node has no such API or \
                 stage; give all nodes the same one. More of this stage are only counted in \
                 tidegate_disconnect_events_lost_total"
            );
        }
        self.metrics.disconnect_lost(&stage);
    }
}

impl Way {
    fn of(live: Arc<Live>, connection: &Connection) -> Option<Self> {
        let (deployment, stage) = live.stage(&connection.api_id, &connection.stage)?;
        let (deployment, stage, route) = (Arc::clone(deployment), Arc::clone(stage), stage.disconnect.clone()?);
        Some(Way { live, deployment, stage, route })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::authorizer::{Access, Mechanisms};
    use crate::clock::Timestamp;
    use crate::deployment::{CompileContext, Deployments};
    use crate::http_client::HttpClient;
    use crate::id::{ConnectionId, NodeId};
    use crate::limits::LimitSettings;

    /// Configuration `number`, with stages of these names.
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
        // Each reload takes the only stage away, and brings another one.
        let names: Vec<String> = (0..150).map(|number| format!("stage-{number}")).collect();
        for (number, stage) in (1..).zip(&names) {
            let needed = |stage: &str, oldest| (StageLabels { api_id: "chat".into(), stage: stage.into() }, oldest);
            // One client is on the first stage. Another came to the second when it had lost its route.
            let connections = || HashMap::from([needed("stage-0", 1), needed("stage-1", 99)]);
            retired.replace(&live(number, std::slice::from_ref(stage)), &live(number + 1, &[]), connections);
        }
        assert_eq!(retired.stages().len(), KEPT_MAX);
        assert_eq!(number_of("stage-0", 1), Some(1));
        assert_eq!(number_of("stage-0", 2), None, "it was admitted when there was no such route");
        assert_eq!(number_of("stage-1", 2), None, "the oldest go");
        assert_eq!((number_of("stage-149", 0), number_of("stage-149", 150)), (Some(150), Some(150)));
        // It is there again: the configuration in force tells.
        retired.replace(&live(151, &[]), &live(152, &["stage-0".to_owned()]), HashMap::new);
        assert_eq!(number_of("stage-0", 1), None);
    }
}
