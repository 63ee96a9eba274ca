use std::sync::Arc;

use futures_util::future::join_all;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::CallRecord;
use crate::data_plane::delivery::ask::{Reply, ask_named, by_owner};
use crate::data_plane::delivery::find::find_here;
use crate::data_plane::delivery::reach::Reach;
use crate::data_plane::response::{Body, empty, json};
use crate::data_plane::{ConnectionsApiError, DataPlane, Live};
use tidegate_connections::cluster::link::{ChangeResult, GroupRequest};
use tidegate_connections::groups::JoinRefused;
use tidegate_core::id::ConnectionId;
use tidegate_core::topic::TopicName;

/// A request that connections join a group, or leave it.
#[derive(Debug)]
pub struct Change {
    pub group: TopicName,
    pub join: bool,
    pub connections: Vec<ConnectionId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    connections: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Number of connections that are in the group now, or no longer in it.
    changed: usize,
    gone_connections: Vec<String>,
    /// Connections that have reached their limit of groups.
    full_connections: Vec<String>,
    /// Connections whose node cannot be reached or did not answer.
    unreachable_connections: Vec<String>,
}

/// The result of a change on all nodes.
#[derive(Debug, Default)]
struct Outcome {
    changed: ChangeResult,
    unreachable: Vec<ConnectionId>,
}

impl Change {
    /// Parses the change of many connections from a body `{"connections":["…"]}`.
    ///
    /// # Errors
    /// Returns `BadRequest` if the body is malformed, `InvalidConnectionId` if an id is, or `OverLimit` if there are more ids than `targets`.
    pub fn many(group: TopicName, body: &[u8], targets: u32, join: bool) -> Result<Self, ConnectionsApiError> {
        let ChangeBody { connections } = tidegate_core::json::from_slice(body)
            .map_err(|_| ConnectionsApiError::BadRequest("the body must be {\"connections\":[\"…\"]}"))?;
        let max = usize::try_from(targets).unwrap_or(usize::MAX);
        if connections.len() > max {
            return Err(ConnectionsApiError::OverLimit { what: "connections (limits.targets)", max });
        }
        let parse = |id: String| ConnectionId::parse(&id).map_err(|_| ConnectionsApiError::InvalidConnectionId(id));
        let mut connections: Vec<ConnectionId> = connections.into_iter().map(parse).collect::<Result<_, _>>()?;
        connections.sort_unstable();
        connections.dedup();
        Ok(Change { group, join, connections })
    }
}

/// Carries out `PUT` and `DELETE /{stage}/@groups/{group}/connections/{connectionId}`: responds with 204 once the
/// connection is in the group, or no longer in it.
///
/// # Errors
/// Returns `Gone` if the connection is gone, `TooManyGroups` if it has reached its limit of groups, or
/// `OwnerUnreachable` if its node cannot be reached or did not answer.
pub(super) async fn change_one(
    plane: &DataPlane,
    call: &CallRecord,
    change: Change,
) -> Result<Response<Body>, ConnectionsApiError> {
    let Outcome { changed, unreachable } = apply(plane, call, change).await;
    if !changed.gone.is_empty() {
        return Err(ConnectionsApiError::Gone);
    }
    if !changed.full.is_empty() {
        return Err(ConnectionsApiError::TooManyGroups { max: call.live.settings.limits.groups_per_connection });
    }
    if unreachable.is_empty() { Ok(empty(StatusCode::NO_CONTENT)) } else { Err(ConnectionsApiError::OwnerUnreachable) }
}

/// Carries out `PUT` and `DELETE /{stage}/@groups/{group}/connections`: changes the group for all connections of the
/// body. The response names those that were not changed.
pub(super) async fn change_many(plane: &DataPlane, call: &CallRecord, change: Change) -> Response<Body> {
    let count = change.connections.len();
    let Outcome { changed, unreachable } = apply(plane, call, change).await;
    let texts = |ids: &[ConnectionId]| ids.iter().map(ToString::to_string).collect();
    json(
        StatusCode::OK,
        &Report {
            changed: count - changed.gone.len() - changed.full.len() - unreachable.len(),
            gone_connections: texts(&changed.gone),
            full_connections: texts(&changed.full),
            unreachable_connections: texts(&unreachable),
        },
    )
}

async fn apply(plane: &DataPlane, call: &CallRecord, change: Change) -> Outcome {
    let Change { group, join, connections } = change;
    let (api_id, reach) = (&call.deployment.api_id, Reach::OfCall(call));
    let (own, elsewhere) = by_owner(plane, &connections).await;
    let stages = if elsewhere.is_empty() { None } else { reach.stages() };
    let stages = &stages;
    let requests = elsewhere.into_iter().map(|(owner, connections)| {
        let (api_id, group, named) = (Arc::clone(api_id), group.clone(), connections.clone());
        let request = GroupRequest::Change { api_id, group, connections: named, join };
        async move { (ask_named(owner, request, stages.as_ref()).await, connections) }
    });
    let replies = join_all(requests).await;
    let changed = change_here(plane, &call.live, api_id, &Change { group, join, connections: own }, reach);
    if join {
        plane.recorded().await;
    }
    let mut outcome = Outcome { changed, unreachable: Vec::new() };
    for (reply, connections) in replies {
        match reply {
            Reply::Answer(answer) => match ChangeResult::decode(&answer) {
                Ok(ChangeResult { gone, full }) => {
                    outcome.changed.gone.extend(gone);
                    outcome.changed.full.extend(full);
                }
                Err(_) => outcome.unreachable.extend(connections),
            },
            Reply::NodeGone => outcome.changed.gone.extend(connections),
            Reply::NoAnswer => outcome.unreachable.extend(connections),
        }
    }
    outcome
}

/// Carries out `change` for connections on this node that are within `reach`. All others are reported as gone.
pub(in crate::data_plane) fn change_here(
    plane: &DataPlane,
    live: &Live,
    api_id: &Arc<str>,
    change: &Change,
    reach: Reach<'_>,
) -> ChangeResult {
    let most = live.most_topics();
    let mut changed = ChangeResult::default();
    for id in &change.connections {
        let Some(open) = find_here(plane, api_id, id, reach) else {
            changed.gone.push(*id);
            continue;
        };
        if change.join {
            match plane.groups.join(&open.connection, &open.outbox, change.group.clone(), most) {
                Ok(()) => {}
                Err(JoinRefused::Gone) => changed.gone.push(*id),
                Err(JoinRefused::TooMany) => changed.full.push(*id),
            }
        } else if !plane.groups.leave(&open.connection, &change.group) {
            changed.gone.push(*id);
        }
    }
    changed
}
