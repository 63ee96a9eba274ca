use std::sync::Arc;

use http::{Response, StatusCode};

use super::CallRecord;
use crate::data_plane::delivery::ask::{Reply, ask_named, by_owner};
use crate::data_plane::delivery::find::find_here;
use crate::data_plane::delivery::reach::Reach;
use crate::data_plane::response::{Body, json};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use tidegate_connections::cluster::link::{GroupNames, GroupRequest};
use tidegate_core::id::ConnectionId;
use tidegate_core::topic::{TopicKind, TopicName};

/// Carries out `GET /{stage}/@connections/{connectionId}/groups`: returns the names of a connection's groups.
///
/// # Errors
/// Returns `Gone` if the connection is gone, or `OwnerUnreachable` if its node cannot be reached or did not answer.
pub(super) async fn get_connection_groups(
    plane: &DataPlane,
    call: &CallRecord,
    id: ConnectionId,
) -> Result<Response<Body>, ConnectionsApiError> {
    let (api_id, reach) = (&call.deployment.api_id, Reach::OfCall(call));
    let (own, mut elsewhere) = by_owner(plane, &[id]).await;
    let names = match elsewhere.pop() {
        None => own.first().and_then(|own| names_here(plane, api_id, own, reach)),
        Some((owner, _)) => {
            let request = GroupRequest::Names { api_id: Arc::clone(api_id), connection: id };
            match ask_named(owner, request, reach.stages().as_ref()).await {
                Reply::Answer(answer) => {
                    GroupNames::decode(&answer).map_err(|_| ConnectionsApiError::OwnerUnreachable)?.0
                }
                Reply::NodeGone => None,
                Reply::NoAnswer => return Err(ConnectionsApiError::OwnerUnreachable),
            }
        }
    };
    let names = names.ok_or(ConnectionsApiError::Gone)?;
    let groups: Vec<&str> = names.iter().map(TopicName::as_str).collect();
    Ok(json(StatusCode::OK, &serde_json::json!({ "groups": groups })))
}

/// Returns the groups of the connection `id` of this node, or `None` if it is gone or not within `reach`.
pub(in crate::data_plane) fn names_here(
    plane: &DataPlane,
    api_id: &str,
    id: &ConnectionId,
    reach: Reach<'_>,
) -> Option<Vec<TopicName>> {
    let open = find_here(plane, api_id, id, reach)?;
    plane.groups.names(&open.connection, TopicKind::Group)
}
