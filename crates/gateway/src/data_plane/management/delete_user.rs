use std::num::NonZeroUsize;
use std::sync::Arc;

use http::{Response, StatusCode};
use serde::Serialize;

use super::{CallRecord, CloseRequest};
use crate::data_plane::DataPlane;
use crate::data_plane::delivery::ask::members_of_all;
use crate::data_plane::response::{Body, json};
use tidegate_connections::cluster::link::{GroupRequest, MemberPage};
use tidegate_connections::session::Closing;
use tidegate_core::topic::{Topic, TopicName};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Number of connections that were closed.
    connections: u64,
    /// Nodes that may have connections of the user and did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable_nodes: Option<NonZeroUsize>,
}

/// Carries out `DELETE /{stage}/@users/{user}`: closes all connections of a user and returns their number.
pub(super) async fn delete_user(
    plane: &DataPlane,
    call: &CallRecord,
    user: TopicName,
    close: &CloseRequest,
) -> Response<Body> {
    let (api_id, code, reason) = (Arc::clone(&call.deployment.api_id), close.code, close.reason.as_str().into());
    let elsewhere = GroupRequest::Close { api_id, user: user.clone(), code, reason };
    let api_id = &call.deployment.api_id;
    let here = close_here(plane, api_id, user.clone(), close);
    let (MemberPage { count, .. }, unreachable) = members_of_all(plane, api_id, &user, here, &elsewhere).await;
    json(StatusCode::OK, &Report { connections: count, unreachable_nodes: NonZeroUsize::new(unreachable) })
}

/// Closes the connections of `user` on this node. Returns their number.
pub(in crate::data_plane) fn close_here(
    plane: &DataPlane,
    api_id: &Arc<str>,
    user: TopicName,
    close: &CloseRequest,
) -> MemberPage {
    let topic = Topic { api_id: Arc::clone(api_id), name: user };
    let closing = Closing::deleted(close.code, &close.reason);
    let members = plane.groups.members(&topic);
    let closed = members.iter().filter(|member| member.outbox.close(closing.clone())).count();
    MemberPage { count: closed as u64, ids: Vec::new() }
}
