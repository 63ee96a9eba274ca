use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::{count, find};
use crate::data_plane::gateway_response::{Body, empty};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::deployment::Deployment;

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
/// The id is malformed, or the connection gone.
pub async fn get_connection(
    plane: &DataPlane,
    deployment: &Arc<Deployment>,
    id: &str,
) -> Result<Response<Body>, ConnectionsApiError> {
    let open = find(plane, deployment, id)?;
    count(plane, &open.connection).await?;
    let info = ConnectionInfo {
        identity: Identity {
            source_ip: open.connection.source_ip.to_string(),
            user_agent: open.connection.user_agent.as_deref().unwrap_or_default().to_owned(),
        },
        connected_at: open.connection.connected_at.iso_8601(),
        last_active_at: open.outbox.last_active().iso_8601(),
    };
    let json = serde_json::to_vec_pretty(&info).expect("strings are JSON");
    let mut response = empty(StatusCode::OK);
    *response.body_mut() = Full::new(Bytes::from(json));
    Ok(response)
}
