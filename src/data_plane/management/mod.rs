//! The backend's side: `@connections`. A call for a connection of another node is forwarded to it, once.

mod call;
mod delete_connection;
mod forward;
mod get_connection;
mod local;
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

/// Where the connection is that a call is about.
enum Found {
    Here(Open),
    Elsewhere(ConnectionId),
}

/// Finds the connection that a call is about.
fn find(plane: &DataPlane, deployment: &Arc<Deployment>, id: &str) -> Result<Found, ConnectionsApiError> {
    let parsed = ConnectionId::parse(id).map_err(|_| ConnectionsApiError::InvalidConnectionId(id.to_owned()))?;
    if plane.cluster.is_some() && parsed.node() != plane.registry.node() {
        return Ok(Found::Elsewhere(parsed));
    }
    find_here(plane, &deployment.api_id, &parsed).map(Found::Here).ok_or(ConnectionsApiError::Gone)
}

/// Finds a connection of this node. It belongs to the API, not to the stage: every stage of its API reaches it, as on
/// AWS.
fn find_here(plane: &DataPlane, api_id: &str, id: &ConnectionId) -> Option<Open> {
    let open = plane.registry.get_open(id).filter(|open| *open.connection.api_id == *api_id);
    open.filter(|open| open.outbox.is_open())
}
