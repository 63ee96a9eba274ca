//! The backend's side: `@connections`, and what stands beside it for many: `@groups`, `@users`, `@broadcast` and `@send`.
//!
//! A call for a connection of another node is forwarded to it, once; a message to many goes to each node once, and is
//! fanned out there (`push.rs`).

mod answer_peer;
mod call;
mod delete_connection;
mod forward;
mod get_connection;
mod listing;
mod local;
mod membership;
mod operation;
mod peers;
mod post_to_audience;
mod post_to_connection;
pub(super) mod push;
pub(super) mod reach;
pub(super) mod send;

use std::time::Duration;

use http::HeaderName;
use tokio::time::timeout;

use crate::iam::{Claim, ConnectionsCall, Grant, IamError};

use crate::data_plane::context::log_refused;
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::id::ConnectionId;
use crate::registry::OpenConnection;
use crate::request_context::Connection;
use crate::telemetry::{Span, SpanKind};
use crate::trace_context::TraceContext;
use crate::usage::Counted;

use reach::Reach;

pub use call::CallRecord;
pub use delete_connection::{CloseRequest, delete_connection};
pub use get_connection::get_connection;
pub use listing::{Asked, close_all, list};
pub use membership::{Change, change_many, change_one, get_connection_groups};
pub use operation::{BodyKind, OPERATIONS, Operation};
pub use post_to_audience::post_to_audience;
pub use post_to_connection::post_to_connection;
pub use send::{Batch, send};

/// Counts a call for the API key that the connection came with, on the node that holds it. A connection can always be
/// closed, so [`delete_connection`] does not count.
fn count(plane: &DataPlane, connection: &Connection) -> Counted {
    match &*connection.principal.load() {
        Some(principal) => {
            let now = plane.clock.now();
            plane.live().access.count(Some(principal), &connection.api_id, &connection.stage, now)
        }
        None => Counted::Now(Ok(())),
    }
}

/// Authenticates and authorizes a signed call of `@connections`; the operator learns of one that is refused.
///
/// # Errors
/// [`ConnectionsApiError::Denied`]: it cannot be let in whatever its body is.
pub fn claim_call<'h>(
    plane: &DataPlane,
    call: &ConnectionsCall<'_>,
    deciding: impl IntoIterator<Item = &'h HeaderName>,
) -> Result<Claim, ConnectionsApiError> {
    plane.live().access.claim_call(call, deciding, plane.clock.now()).map_err(|error| denied(call, error))
}

/// Finds out who signed a call, now that its body is there; the operator learns of one that may not be made.
///
/// # Errors
/// [`ConnectionsApiError::Denied`]: the signature is not valid, or its key may not make the call.
pub fn admit_call(plane: &DataPlane, claim: Claim, call: &ConnectionsCall<'_>) -> Result<Grant, ConnectionsApiError> {
    plane.live().access.admit_call(claim, call, plane.clock.now()).map_err(|error| denied(call, error))
}

/// Checks whether a signed call is worth reading its body. The signature must cover the headers of `deciding`.
///
/// # Errors
/// [`ConnectionsApiError::Denied`]: its key may not make the call on one of its paths.
pub fn permit(grant: &Grant, call: &ConnectionsCall<'_>) -> Result<(), ConnectionsApiError> {
    grant.permit(call).map_err(|error| denied(call, error))
}

fn denied(call: &ConnectionsCall<'_>, error: IamError) -> ConnectionsApiError {
    log_refused(&error, false, call.api_id, call.stage, "a call of @connections was refused");
    ConnectionsApiError::Denied(error)
}

/// Takes a token of the bucket of all APIs for a call.
///
/// # Errors
/// There is none.
pub fn admit(plane: &DataPlane) -> Result<(), ConnectionsApiError> {
    if plane.live().admit() { Ok(()) } else { Err(ConnectionsApiError::Throttled) }
}

/// Where the connection is that a call is about.
enum Found {
    Here(OpenConnection),
    Elsewhere(ConnectionId),
}

/// Finds the connection that a call is about, once this node may serve it.
async fn find(plane: &DataPlane, call: &CallRecord, id: &str) -> Result<Found, ConnectionsApiError> {
    let parsed = ConnectionId::parse(id).map_err(|_| ConnectionsApiError::InvalidConnectionId(id.to_owned()))?;
    if plane.cluster.is_some() && parsed.node() != plane.registry.node() {
        return Ok(Found::Elsewhere(parsed));
    }
    served(plane).await?;
    let found = find_here(plane, &call.deployment.api_id, &parsed, Reach::OfCall(call));
    found.map(Found::Here).ok_or(ConnectionsApiError::Gone)
}

/// How long a call waits while this node must not serve. What was queued before waits for as long as clients are held.
const HOLD: Duration = Duration::from_secs(2);

/// Whether a call may be carried out here and now, or soon.
fn may_serve(plane: &DataPlane) -> bool {
    plane.registry.gate().shut_for().is_none_or(|shut| shut < HOLD)
}

/// Waits until a call may be carried out here.
///
/// # Errors
/// Not soon; nothing was done.
async fn served(plane: &DataPlane) -> Result<(), ConnectionsApiError> {
    let gate = plane.registry.gate();
    let Some(shut) = gate.shut_for() else { return Ok(()) };
    let opened = timeout(HOLD.saturating_sub(shut), gate.opened()).await;
    opened.map_err(|_| ConnectionsApiError::OwnerUnreachable)
}

/// Finds a connection of this node, if it is of the API and within `reach`.
fn find_here(plane: &DataPlane, api_id: &str, id: &ConnectionId, reach: Reach<'_>) -> Option<OpenConnection> {
    let open = plane.registry.get_open(id).filter(|open| *open.connection.api_id == *api_id);
    open.filter(|open| open.outbox.is_open() && reach.has(&open.connection.stage))
}

/// The span of what another node asks for, if its trace is made.
fn forwarded(plane: &DataPlane, api_id: &str, trace: Option<TraceContext>) -> Option<Span> {
    let mut span = plane.telemetry.tracer.start("forwarded @connections", SpanKind::Server, Some(trace?));
    if !span.is_recording() {
        return None;
    }
    span.set("tidegate.api_id", api_id);
    Some(span)
}
