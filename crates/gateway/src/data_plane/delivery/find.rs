use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::reach::Reach;
use crate::data_plane::management::CallRecord;
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::deployment::Stage;
use tidegate_access::usage::Counted;
use tidegate_connections::registry::OpenConnection;
use tidegate_core::clock::Timestamp;
use tidegate_core::id::ConnectionId;
use tidegate_core::request_context::Connection;
use tidegate_core::trace_context::TraceContext;
use tidegate_telemetry::{Span, SpanKind};

/// Counts a call against the usage plan of the connection's API key on its `stage`, on the node that holds the connection.
/// Calls of `delete_connection` are not counted, because it must always be possible to close a connection.
pub(in crate::data_plane) fn count<'a>(
    connection: &Connection,
    now: Timestamp,
    stage: impl FnOnce() -> Option<&'a Arc<Stage>>,
) -> Counted {
    let principal = connection.principal.load();
    // Most connections have no API key, and no stage is looked up for them.
    let keyed = principal.as_deref().filter(|principal| principal.api_key.is_some());
    match keyed.and_then(|principal| Some((principal, stage()?))) {
        Some((principal, stage)) => stage.usage.count(Some(principal), now),
        None => Counted::Now(Ok(())),
    }
}

/// The place of the connection that a call names: on this node, or on another one.
pub(in crate::data_plane) enum Found {
    Here(OpenConnection),
    Elsewhere(ConnectionId),
}

/// Finds the connection `id` of a call. Waits, for a short time, until this node may serve.
///
/// # Errors
/// Returns `Gone` if there is no such open connection, or `OwnerUnreachable` if this node may not serve.
pub(in crate::data_plane) async fn find(
    plane: &DataPlane,
    call: &CallRecord,
    id: ConnectionId,
) -> Result<Found, ConnectionsApiError> {
    if plane.cluster.is_some() && id.node() != plane.registry.node() {
        return Ok(Found::Elsewhere(id));
    }
    served(plane).await?;
    let found = find_here(plane, &call.deployment.api_id, &id, Reach::OfCall(call));
    found.map(Found::Here).ok_or(ConnectionsApiError::Gone)
}

/// Longest time that a call waits while this node must not serve. Frames that were queued before wait for as long as
/// clients are held.
const HOLD: Duration = Duration::from_secs(2);

/// Returns true if this node may serve calls now, or has not been kept from it for longer than [`HOLD`].
pub(in crate::data_plane) fn may_serve(plane: &DataPlane) -> bool {
    plane.registry.gate().shut_for().is_none_or(|shut| shut < HOLD)
}

/// Waits until this node may carry out a call.
///
/// # Errors
/// Returns `OwnerUnreachable` if it may not within [`HOLD`]. Nothing was done then.
pub(in crate::data_plane) async fn served(plane: &DataPlane) -> Result<(), ConnectionsApiError> {
    let gate = plane.registry.gate();
    let Some(shut) = gate.shut_for() else { return Ok(()) };
    let opened = timeout(HOLD.saturating_sub(shut), gate.opened()).await;
    opened.map_err(|_| ConnectionsApiError::OwnerUnreachable)
}

/// Returns the connection `id` if it is open on this node, belongs to the API `api_id` and is within `reach`.
pub(in crate::data_plane) fn find_here(
    plane: &DataPlane,
    api_id: &str,
    id: &ConnectionId,
    reach: Reach<'_>,
) -> Option<OpenConnection> {
    let open = plane.registry.get_open(id).filter(|open| *open.connection.api_id == *api_id);
    open.filter(|open| open.outbox.is_open() && reach.has(&open.connection.stage))
}

/// Returns the span of a request from another node, if its trace is recorded.
pub(in crate::data_plane) fn forwarded(plane: &DataPlane, api_id: &str, trace: Option<TraceContext>) -> Option<Span> {
    let mut span = plane.telemetry.tracer.start("forwarded @connections", SpanKind::Server, Some(trace?));
    if !span.is_recording() {
        return None;
    }
    span.set("tidegate.api_id", api_id);
    Some(span)
}
