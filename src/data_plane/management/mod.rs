//! The calls of backends: `@connections` for one connection; `@groups`, `@users`, `@broadcast` and `@send` for many.
//!
//! A call for a connection of another node is forwarded to that node, once. A message to many goes to each node once,
//! and each node fans it out to its own connections (`delivery/fan_out.rs`).

mod call;
pub(super) mod delete_connection;
pub(super) mod get_connection;
pub(super) mod listing;
pub(super) mod membership;
mod operation;
mod post_to_audience;
mod post_to_connection;
pub(super) mod send;

use http::HeaderName;

use crate::authorizer::{Claim, ConnectionsCall, Denial, Grant};
use crate::data_plane::context::log_denial;
use crate::data_plane::{ConnectionsApiError, DataPlane};

pub use call::CallRecord;
pub use delete_connection::{CloseRequest, delete_connection};
pub use get_connection::get_connection;
pub use listing::{Asked, close_all, list};
pub use membership::{Change, change_many, change_one, get_connection_groups};
pub use operation::{BodyKind, OPERATIONS, Operation};
pub use post_to_audience::post_to_audience;
pub use post_to_connection::post_to_connection;
pub use send::{Batch, send};

/// Authenticates a signed call of `@connections` as far as that is possible without its body. Logs a refused call. The
/// signature must cover the headers `deciding`.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the call must be refused whatever its body is.
pub fn claim_call<'h>(
    plane: &DataPlane,
    call: &ConnectionsCall<'_>,
    deciding: impl IntoIterator<Item = &'h HeaderName>,
) -> Result<Claim, ConnectionsApiError> {
    plane.live().access.claim_call(call, deciding, plane.clock.now()).map_err(|denial| denied(call, denial))
}

/// Authenticates and authorizes a signed call whose body has arrived. Returns the right of its key. Logs a refused
/// call.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the signature is not valid, or if its key may not make the call.
pub fn admit_call(plane: &DataPlane, claim: Claim, call: &ConnectionsCall<'_>) -> Result<Grant, ConnectionsApiError> {
    plane.live().access.admit_call(claim, call, plane.clock.now()).map_err(|denial| denied(call, denial))
}

/// Checks that the key of a signed call may make the call on all of its paths, before its body is read.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the key may not make the call on one of the paths.
pub fn permit(grant: &Grant, call: &ConnectionsCall<'_>) -> Result<(), ConnectionsApiError> {
    grant.permit(call).map_err(|denial| denied(call, denial))
}

fn denied(call: &ConnectionsCall<'_>, denial: Denial) -> ConnectionsApiError {
    log_denial(&denial, call.api_id, call.stage, "a call of @connections was refused");
    ConnectionsApiError::Denied(denial)
}

/// Takes a token for a call from the throttle that all APIs share.
///
/// # Errors
/// Returns [`ConnectionsApiError::Throttled`] if there is none.
pub fn admit(plane: &DataPlane) -> Result<(), ConnectionsApiError> {
    if plane.live().admit() { Ok(()) } else { Err(ConnectionsApiError::Throttled) }
}
