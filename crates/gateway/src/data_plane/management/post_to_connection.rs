use bytes::Bytes;
use http::{Response, StatusCode};

use super::CallRecord;
use crate::data_plane::delivery::find::{Found, count, find};
use crate::data_plane::delivery::forward::forward;
use crate::data_plane::response::{Body, empty};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use tidegate_connections::cluster::link::Action;
use tidegate_connections::registry::OpenConnection;
use tidegate_connections::session::{DataFrame, PostRefused};
use tidegate_core::data_type::DataType;
use tidegate_core::id::ConnectionId;
use tidegate_telemetry::PushPath;

/// Carries out `POST /{stage}/@connections/{connectionId}`: sends data to a client. Responds with 200 once the whole
/// frame is written to the socket.
///
/// # Errors
/// Returns `Gone` if the connection is gone, `TooLarge` if the data are larger than its node allows, `BufferFull` if the
/// send buffer is full, `UsageExceeded` if the usage plan of the connection's API key is
/// exhausted, `OwnerUnreachable` if the connection's node cannot be reached, or `DeliveryUnknown` if that node did not
/// answer.
pub(super) async fn post_to_connection(
    plane: &DataPlane,
    call: &mut CallRecord,
    id: ConnectionId,
    data: Bytes,
    data_type: DataType,
) -> Result<Response<Body>, ConnectionsApiError> {
    let outcome = match find(plane, call, id).await? {
        Found::Elsewhere(id) => {
            call.path = PushPath::Peer;
            post_elsewhere(plane, call, id, data, data_type).await
        }
        Found::Here(open) => post(plane, call, &open, data, data_type).await,
    };
    outcome.map(|()| empty(StatusCode::OK))
}

async fn post(
    plane: &DataPlane,
    call: &CallRecord,
    open: &OpenConnection,
    data: Bytes,
    data_type: DataType,
) -> Result<(), ConnectionsApiError> {
    let counted = count(&open.connection, call.facts.time, || call.deployment.stage(&open.connection.stage));
    counted.await.map_err(ConnectionsApiError::UsageExceeded)?;
    let delivery =
        open.outbox.post(DataFrame::new(data, data_type), plane.clock.now()).map_err(|refused| match refused {
            PostRefused::Gone => ConnectionsApiError::Gone,
            PostRefused::Full => ConnectionsApiError::BufferFull,
        })?;
    // Bounded by the slow client timeout: a socket that accepts no data is closed.
    delivery.await.map_err(|_| ConnectionsApiError::Gone)
}

async fn post_elsewhere(
    plane: &DataPlane,
    call: &CallRecord,
    id: ConnectionId,
    data: Bytes,
    data_type: DataType,
) -> Result<(), ConnectionsApiError> {
    let action = Action::Post { data, data_type };
    forward(plane, call, id, action).await.map(drop)
}
