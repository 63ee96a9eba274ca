//! The calls of backends: `@connections` for one connection; `@groups`, `@users`, `@broadcast` and `@send` for many.
//!
//! A call for a connection of another node is forwarded to that node, once. A message to many goes to each node once,
//! and each node fans it out to its own connections (`delivery/fan_out.rs`).

mod call;
pub(super) mod delete_connection;
pub(super) mod delete_user;
pub(super) mod get_connection;
pub(super) mod get_connection_groups;
pub(super) mod list_members;
pub(super) mod membership;
mod operation;
mod post_to_audience;
mod post_to_connection;
pub(super) mod send;

use http::HeaderName;

use crate::data_plane::context::log_refused;
use crate::data_plane::{ConnectionsApiError, Live};
use crate::deployment::Resource;
use crate::iam::{Claim, ConnectionsCall, Grant, IamError, PolicyPath, Received, SignatureError};

pub use call::{CallRecord, CallRight};
pub use delete_connection::{CloseRequest, delete_connection};
pub use delete_user::delete_user;
pub use get_connection::get_connection;
pub use get_connection_groups::get_connection_groups;
pub use list_members::{PageRequest, list_members};
pub use membership::{Change, change_many, change_one};
pub use operation::{BodyKind, OPERATIONS, Operation};
pub use post_to_audience::post_to_audience;
pub use post_to_connection::post_to_connection;
pub use send::{Batch, send};

/// Authenticates and authorizes a signed call of `@connections` as far as that is possible without its body. Logs a
/// refused call. The signature must cover the headers `deciding`.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the call must be refused whatever its body is.
pub fn claim_call<'a>(
    live: &Live,
    received: Received<'a>,
    call: ConnectionsCall<'a>,
    deciding: impl IntoIterator<Item = &'a HeaderName>,
) -> Result<Claim<'a>, ConnectionsApiError> {
    let claim = live.access.credentials.claim_call(received, call, deciding);
    claim.map_err(|error| denied((call.api_id, call.stage), error))
}

/// Authenticates and authorizes a signed call whose body has arrived. Returns the right of its key. Logs a refused
/// call.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the signature is not valid, or if its key may not make the call.
pub fn admit_call(claim: Claim<'_>, body: &[u8]) -> Result<Grant, ConnectionsApiError> {
    let (api_id, stage) = claim.stage();
    claim.admit(body).map_err(|error| denied((api_id, stage), error))
}

/// Checks that an admitted call may also act on each of `resources`. Logs a refused call.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the policy of its key does not allow it, or if the call was not admitted.
pub fn permit(call: &CallRecord, resources: impl Iterator<Item = Resource>) -> Result<(), ConnectionsApiError> {
    let permitted = match &call.right {
        CallRight::Unsigned => return Ok(()),
        CallRight::Unchecked => Err(IamError::Signature(SignatureError::Missing)),
        CallRight::Granted(grant) => {
            let paths: Vec<PolicyPath> = resources.map(|resource| resource.policy_path()).collect();
            grant.permit(&call.on(&paths))
        }
    };
    permitted.map_err(|error| denied((&call.deployment.api_id, &call.stage.name), error))
}

fn denied((api_id, stage): (&str, &str), error: IamError) -> ConnectionsApiError {
    log_refused(&error, false, api_id, stage, "a call of @connections was refused");
    ConnectionsApiError::Denied(error)
}

/// Takes a token for a call from the throttle that all APIs share.
///
/// # Errors
/// Returns [`ConnectionsApiError::Throttled`] if there is none.
pub fn admit(live: &Live) -> Result<(), ConnectionsApiError> {
    if live.admit() { Ok(()) } else { Err(ConnectionsApiError::Throttled) }
}
