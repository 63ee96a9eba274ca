use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::forward::forward;
use super::{CallRecord, Found, count, find};
use crate::cluster::link::{Action, PeerAnswer};
use crate::data_plane::gateway_response::{Body, empty};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::registry::OpenConnection;

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
    /// Required by the SDKs' model: empty if the client sent none.
    user_agent: String,
}

/// `GET /{stage}/@connections/{connectionId}`: since when a client is connected, and from where.
///
/// # Errors
/// The id is malformed, the connection gone, or its node cannot be reached.
pub async fn get_connection(
    plane: &DataPlane,
    call: &CallRecord,
    id: &str,
) -> Result<Response<Body>, ConnectionsApiError> {
    let json = match find(plane, call, id).await? {
        Found::Here(open) => {
            let counted = count(&open.connection, call.facts.time, || call.deployment.stage(&open.connection.stage));
            counted.await.map_err(ConnectionsApiError::UsageExceeded)?;
            describe(&open)
        }
        Found::Elsewhere(id) => match forward(plane, call, id, Action::Get).await? {
            PeerAnswer::Info(json) => json,
            // A peer that says it has done what it was not asked to.
            PeerAnswer::Outcome(_) => return Err(ConnectionsApiError::OwnerUnreachable),
        },
    };
    let mut response = empty(StatusCode::OK);
    *response.body_mut() = Full::new(json);
    Ok(response)
}

/// What a GET answers, as JSON.
pub(super) fn describe(open: &OpenConnection) -> Bytes {
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
