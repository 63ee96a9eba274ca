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

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::time::timeout;

use crate::iam::{Claim, ConnectionsCall, Grant, IamError, PolicyPath, Received, SignatureError};

use crate::clock::Timestamp;
use crate::data_plane::context::log_refused;
use crate::data_plane::{ConnectionsApiError, DataPlane, Live};
use crate::deployment::{Resource, Stage};
use crate::id::ConnectionId;
use crate::registry::OpenConnection;
use crate::request_context::Connection;
use crate::telemetry::{Span, SpanKind};
use crate::trace_context::TraceContext;
use crate::usage::Counted;

use reach::Reach;

pub use call::{CallRecord, CallRight};
pub use delete_connection::{CloseRequest, delete_connection};
pub use get_connection::get_connection;
pub use listing::{Asked, close_all, list};
pub use membership::{Change, change_many, change_one, get_connection_groups};
pub use operation::{BodyKind, OPERATIONS, Operation};
pub use post_to_audience::post_to_audience;
pub use post_to_connection::post_to_connection;
pub use send::{Batch, send};

/// Counts a call for the API key that the connection came with, on the node that holds it, against the usage plan of
/// the connection's `stage`. A connection can always be closed, so [`delete_connection`] does not count.
fn count<'a>(connection: &Connection, now: Timestamp, stage: impl FnOnce() -> Option<&'a Arc<Stage>>) -> Counted {
    let principal = connection.principal.load();
    // Most connections have no API key, and no stage is looked up for them.
    let keyed = principal.as_deref().filter(|principal| principal.api_key.is_some());
    match keyed.and_then(|principal| Some((principal, stage()?))) {
        Some((principal, stage)) => stage.usage.count(Some(principal), now),
        None => Counted::Now(Ok(())),
    }
}

/// Checks a signed call of `@connections` as far as possible without its body, and logs a refusal. The signature must
/// cover the headers of `deciding`.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the call would be refused with any body.
pub fn claim_call<'a>(
    live: &Live,
    received: Received<'a>,
    call: ConnectionsCall<'a>,
    deciding: impl IntoIterator<Item = &'a HeaderName>,
) -> Result<Claim<'a>, ConnectionsApiError> {
    let claim = live.access.credentials.claim_call(received, call, deciding);
    claim.map_err(|error| denied((call.api_id, call.stage), error))
}

/// Checks the rest of a signed call with its body, and logs a refusal.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the signature is not valid or the policy of its key does not allow the call.
pub fn admit_call(claim: Claim<'_>, body: &[u8]) -> Result<Grant, ConnectionsApiError> {
    let (api_id, stage) = claim.stage();
    claim.admit(body).map_err(|error| denied((api_id, stage), error))
}

/// Checks that a call that was let in may also act on each of `resources`, and logs a refusal.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the policy of its key does not allow it, or if the call was never let in.
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

/// Takes a token of the bucket of all APIs for a call.
///
/// # Errors
/// There is none.
pub fn admit(live: &Live) -> Result<(), ConnectionsApiError> {
    if live.admit() { Ok(()) } else { Err(ConnectionsApiError::Throttled) }
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
