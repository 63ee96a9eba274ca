//! The calls of backends: `@connections` for one connection; `@groups`, `@users`, `@broadcast` and `@send` for many.
//!
//! A call for a connection of another node is forwarded to that node, once. A message to many goes to each node once,
//! and each node fans it out to its own connections (`push.rs`).

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

use crate::authorizer::{Claim, ConnectionsCall, Counted, Denial, Grant};
use crate::data_plane::context::log_denial;
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::id::ConnectionId;
use crate::registry::OpenConnection;
use crate::request_context::Connection;
use crate::telemetry::{Span, SpanKind};
use crate::trace_context::TraceContext;

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

/// Counts a call against the usage plan of the connection's API key, on the node that holds the connection. Calls of
/// [`delete_connection`] are not counted, because it must always be possible to close a connection.
fn count(plane: &DataPlane, connection: &Connection) -> Counted {
    match &*connection.principal.load() {
        Some(principal) => {
            let now = plane.clock.now();
            plane.live().access.count(Some(principal), &connection.api_id, &connection.stage, now)
        }
        None => Counted::Now(Ok(())),
    }
}

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

/// The place of the connection that a call names: on this node, or on another one.
enum Found {
    Here(OpenConnection),
    Elsewhere(ConnectionId),
}

/// Finds the connection `id` of a call. Waits, for a short time, until this node may serve.
///
/// # Errors
/// Returns `InvalidConnectionId` if `id` is malformed, `Gone` if there is no such open connection, or
/// `OwnerUnreachable` if this node may not serve.
async fn find(plane: &DataPlane, call: &CallRecord, id: &str) -> Result<Found, ConnectionsApiError> {
    let parsed = ConnectionId::parse(id).map_err(|_| ConnectionsApiError::InvalidConnectionId(id.to_owned()))?;
    if plane.cluster.is_some() && parsed.node() != plane.registry.node() {
        return Ok(Found::Elsewhere(parsed));
    }
    served(plane).await?;
    let found = find_here(plane, &call.deployment.api_id, &parsed, Reach::OfCall(call));
    found.map(Found::Here).ok_or(ConnectionsApiError::Gone)
}

/// Longest time that a call waits while this node must not serve. Frames that were queued before wait for as long as
/// clients are held.
const HOLD: Duration = Duration::from_secs(2);

/// Returns true if this node may serve calls now, or has not been kept from it for longer than [`HOLD`].
fn may_serve(plane: &DataPlane) -> bool {
    plane.registry.gate().shut_for().is_none_or(|shut| shut < HOLD)
}

/// Waits until this node may carry out a call.
///
/// # Errors
/// Returns `OwnerUnreachable` if it may not within [`HOLD`]. Nothing was done then.
async fn served(plane: &DataPlane) -> Result<(), ConnectionsApiError> {
    let gate = plane.registry.gate();
    let Some(shut) = gate.shut_for() else { return Ok(()) };
    let opened = timeout(HOLD.saturating_sub(shut), gate.opened()).await;
    opened.map_err(|_| ConnectionsApiError::OwnerUnreachable)
}

/// Returns the connection `id` if it is open on this node, belongs to the API `api_id` and is within `reach`.
fn find_here(plane: &DataPlane, api_id: &str, id: &ConnectionId, reach: Reach<'_>) -> Option<OpenConnection> {
    let open = plane.registry.get_open(id).filter(|open| *open.connection.api_id == *api_id);
    open.filter(|open| open.outbox.is_open() && reach.has(&open.connection.stage))
}

/// Returns the span of a request from another node, if its trace is recorded.
fn forwarded(plane: &DataPlane, api_id: &str, trace: Option<TraceContext>) -> Option<Span> {
    let mut span = plane.telemetry.tracer.start("forwarded @connections", SpanKind::Server, Some(trace?));
    if !span.is_recording() {
        return None;
    }
    span.set("tidegate.api_id", api_id);
    Some(span)
}
