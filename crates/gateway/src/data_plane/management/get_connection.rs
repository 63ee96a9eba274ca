use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::CallRecord;
use crate::data_plane::delivery::find::{Found, count, find};
use crate::data_plane::delivery::forward::forward;
use crate::data_plane::response::{Body, JSON, respond};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use tidegate_connections::cluster::link::{Action, PeerAnswer};
use tidegate_connections::registry::OpenConnection;
use tidegate_core::id::ConnectionId;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionInfo {
    identity: Identity,
    connected_at: String,
    last_active_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    source_ip: String,
    /// The client's `User-Agent`, empty if it sent none: the SDKs require the member.
    user_agent: String,
}

/// Carries out `GET /{stage}/@connections/{connectionId}`: returns the times and the identity of a connection.
///
/// # Errors
/// Returns `Gone` if the connection is gone, `UsageExceeded` if the usage plan of its API key is exhausted, or `OwnerUnreachable` if its node cannot be reached or did not answer.
pub(super) async fn get_connection(
    plane: &DataPlane,
    call: &CallRecord,
    id: ConnectionId,
) -> Result<Response<Body>, ConnectionsApiError> {
    let json = match find(plane, call, id).await? {
        Found::Here(open) => {
            let counted = count(&open.connection, call.facts.time, || call.deployment.stage(&open.connection.stage));
            counted.await.map_err(ConnectionsApiError::UsageExceeded)?;
            describe(&open)
        }
        Found::Elsewhere(id) => match forward(plane, call, id, Action::Get).await? {
            PeerAnswer::Info(json) => json,
            // The peer answered a GET as if it were another call.
            PeerAnswer::Outcome(_) => return Err(ConnectionsApiError::OwnerUnreachable),
        },
    };
    Ok(respond(StatusCode::OK, JSON, json))
}

/// Returns the response body of a GET, as JSON.
pub(in crate::data_plane) fn describe(open: &OpenConnection) -> Bytes {
    let info = ConnectionInfo {
        identity: Identity {
            source_ip: open.connection.source_ip.to_string(),
            user_agent: open.connection.user_agent.as_deref().unwrap_or_default().to_owned(),
        },
        connected_at: open.connection.connected_at.iso_8601(),
        last_active_at: open.outbox.last_active().iso_8601(),
    };
    serde_json::to_vec_pretty(&info).expect("strings are JSON").into()
}
