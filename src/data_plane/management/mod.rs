//! The backend's side: `@connections`.

mod call;
mod delete_connection;
mod get_connection;
mod post_to_connection;

use std::sync::Arc;

use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::deployment::Deployment;
use crate::id::ConnectionId;
use crate::registry::Open;

pub use call::ConnectionsCall;
pub use delete_connection::{CloseRequest, delete_connection};
pub use get_connection::get_connection;
pub use post_to_connection::{DataType, post_to_connection};

/// Finds the connection that a call is about. It belongs to the API, not to the stage: every stage of its API reaches
/// it, as on AWS.
fn find(plane: &DataPlane, deployment: &Arc<Deployment>, id: &str) -> Result<Open, ConnectionsApiError> {
    let parsed = ConnectionId::parse(id).map_err(|_| ConnectionsApiError::InvalidConnectionId(id.to_owned()))?;
    let open = plane.registry.get_open(&parsed).filter(|open| open.connection.api_id == deployment.api_id);
    open.filter(|open| open.outbox.is_open()).ok_or(ConnectionsApiError::Gone)
}
