use std::sync::Arc;

use futures_util::future::join_all;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::peers::{Reply, ask_named, by_owner};
use super::reach::Reach;
use super::{CallRecord, find_here};
use crate::data_plane::gateway_response::{Body, empty, json};
use crate::data_plane::{ConnectionsApiError, DataPlane, Live};
use crate::groups::{ChangeResult, GroupNames, GroupRequest, JoinRefused};
use crate::id::ConnectionId;
use crate::topic::{TopicKind, TopicName};

/// Connections that are to join a group or to leave it.
#[derive(Debug)]
pub struct Change {
    pub group: TopicName,
    pub join: bool,
    pub connections: Vec<ConnectionId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    connections: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Connections that are in the group now, or are not any more.
    changed: usize,
    gone_connections: Vec<String>,
    /// In as many groups as they may be.
    full_connections: Vec<String>,
    /// Their node cannot be reached, or did not answer.
    unreachable_connections: Vec<String>,
}

/// What became of a change on all nodes.
#[derive(Debug, Default)]
struct Outcome {
    changed: ChangeResult,
    unreachable: Vec<ConnectionId>,
}

impl Change {
    /// Of one connection.
    ///
    /// # Errors
    /// The name or the id is malformed.
    pub fn one(group: &str, id: &str, join: bool) -> Result<Self, ConnectionsApiError> {
        let group = TopicName::group(group).map_err(ConnectionsApiError::InvalidName)?;
        let id = ConnectionId::parse(id).map_err(|_| ConnectionsApiError::InvalidConnectionId(id.to_owned()))?;
        Ok(Change { group, join, connections: vec![id] })
    }

    /// Of many, from a body `{"connections":["…"]}`.
    ///
    /// # Errors
    /// The name or an id is malformed, or there are more than `targets`.
    pub fn many(group: &str, body: &[u8], targets: u32, join: bool) -> Result<Self, ConnectionsApiError> {
        let group = TopicName::group(group).map_err(ConnectionsApiError::InvalidName)?;
        let Written { connections } = crate::json::from_slice(body)
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

/// `PUT` and `DELETE /{stage}/@groups/{group}/connections/{connectionId}`: 204 once the connection is in the group, or is
/// not.
///
/// # Errors
/// The connection is gone, in as many groups as it may be, or its node cannot be reached.
pub async fn change_one(
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

/// `PUT` and `DELETE /{stage}/@groups/{group}/connections`: as for one, for all that the body names; those that it could
/// not be done for are named.
pub async fn change_many(plane: &DataPlane, call: &CallRecord, change: Change) -> Response<Body> {
    let count = change.connections.len();
    let Outcome { changed, unreachable } = apply(plane, call, change).await;
    let texts = |ids: &[ConnectionId]| ids.iter().map(ToString::to_string).collect();
    json(&Report {
        changed: count - changed.gone.len() - changed.full.len() - unreachable.len(),
        gone_connections: texts(&changed.gone),
        full_connections: texts(&changed.full),
        unreachable_connections: texts(&unreachable),
    })
}

async fn apply(plane: &DataPlane, call: &CallRecord, change: Change) -> Outcome {
    let Change { group, join, connections } = change;
    let (api_id, reach) = (&call.deployment.api_id, Reach::OfCall(call));
    let (own, elsewhere) = by_owner(plane, &connections).await;
    let stages = if elsewhere.is_empty() { None } else { reach.stages() };
    let stages = &stages;
    let asked = elsewhere.into_iter().map(|(owner, connections)| {
        let (api_id, group, asked) = (Arc::clone(api_id), group.clone(), connections.clone());
        let ask = GroupRequest::Change { api_id, group, connections: asked, join };
        async move { (ask_named(owner, ask, stages.as_ref()).await, connections) }
    });
    let replies = join_all(asked).await;
    let changed = change_here(plane, &call.live, api_id, &Change { group, join, connections: own }, reach);
    if join {
        plane.recorded().await;
    }
    let mut outcome = Outcome { changed, unreachable: Vec::new() };
    for (reply, connections) in replies {
        match reply {
            Reply::Said(said) => match ChangeResult::decode(&said) {
                Ok(ChangeResult { gone, full }) => {
                    outcome.changed.gone.extend(gone);
                    outcome.changed.full.extend(full);
                }
                Err(_) => outcome.unreachable.extend(connections),
            },
            Reply::Gone => outcome.changed.gone.extend(connections),
            Reply::Nothing => outcome.unreachable.extend(connections),
        }
    }
    outcome
}

/// Changes the group for those of the connections that are on this node and within `reach`.
pub(super) fn change_here(
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

/// `GET /{stage}/@connections/{connectionId}/groups`: the groups that a connection is in, by name.
///
/// # Errors
/// The id is malformed, the connection gone, or its node cannot be reached.
pub async fn get_connection_groups(
    plane: &DataPlane,
    call: &CallRecord,
    id: &str,
) -> Result<Response<Body>, ConnectionsApiError> {
    let (api_id, reach) = (&call.deployment.api_id, Reach::OfCall(call));
    let parsed = ConnectionId::parse(id).map_err(|_| ConnectionsApiError::InvalidConnectionId(id.to_owned()))?;
    let (own, mut elsewhere) = by_owner(plane, &[parsed]).await;
    let names = match elsewhere.pop() {
        None => own.first().and_then(|own| names_here(plane, api_id, own, reach)),
        Some((owner, _)) => {
            let ask = GroupRequest::Names { api_id: Arc::clone(api_id), connection: parsed };
            match ask_named(owner, ask, reach.stages().as_ref()).await {
                Reply::Said(said) => GroupNames::decode(&said).map_err(|_| ConnectionsApiError::OwnerUnreachable)?.0,
                Reply::Gone => None,
                Reply::Nothing => return Err(ConnectionsApiError::OwnerUnreachable),
            }
        }
    };
    let names = names.ok_or(ConnectionsApiError::Gone)?;
    let groups: Vec<&str> = names.iter().map(TopicName::as_str).collect();
    Ok(json(&serde_json::json!({ "groups": groups })))
}

/// The groups of a connection of this node; none if it is gone or not within `reach`.
pub(super) fn names_here(
    plane: &DataPlane,
    api_id: &str,
    id: &ConnectionId,
    reach: Reach<'_>,
) -> Option<Vec<TopicName>> {
    let open = find_here(plane, api_id, id, reach)?;
    plane.groups.names(&open.connection, TopicKind::Group)
}
