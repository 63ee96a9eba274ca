use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::find;
use crate::data_plane::gateway_response::{Body, empty};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::deployment::Deployment;
use crate::session::{Frame, PostRefused};

/// How data go to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// As on AWS: what is not UTF-8 becomes U+FFFD.
    Text,
    /// As they are.
    Binary,
}

/// `POST /{stage}/@connections/{connectionId}`: sends data to a client. 200 once the whole frame is written to its
/// socket.
///
/// # Errors
/// The id is malformed or the connection gone, the data are too large, or the send buffer is full.
pub async fn post_to_connection(
    plane: &DataPlane,
    deployment: &Arc<Deployment>,
    id: &str,
    data: Bytes,
    data_type: DataType,
) -> Result<Response<Body>, ConnectionsApiError> {
    post(plane, deployment, id, data, data_type).await.map(|()| empty(StatusCode::OK))
}

async fn post(
    plane: &DataPlane,
    deployment: &Arc<Deployment>,
    id: &str,
    data: Bytes,
    data_type: DataType,
) -> Result<(), ConnectionsApiError> {
    let open = find(plane, deployment, id)?;
    if data.len() > plane.live().limits.message_bytes {
        return Err(ConnectionsApiError::TooLarge);
    }
    let frame = match data_type {
        DataType::Text => Frame::text_lossy(data),
        DataType::Binary => Frame::binary(data),
    };
    let delivery = open.outbox.post(frame, plane.clock.now()).map_err(|refused| match refused {
        PostRefused::Gone => ConnectionsApiError::Gone,
        PostRefused::Full => ConnectionsApiError::BufferFull,
    })?;
    // Bounded by the slow client timeout: a socket that takes nothing is closed.
    delivery.await.map_err(|_| ConnectionsApiError::Gone)
}
