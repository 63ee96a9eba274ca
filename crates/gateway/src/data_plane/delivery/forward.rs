use std::time::Duration;

use super::reach::stages_for;
use crate::data_plane::management::CallRecord;
use crate::data_plane::{ConnectionsApiError, DataPlane};
use tidegate_access::usage::UsageExceeded;
use tidegate_connections::cluster::Owner;
use tidegate_connections::cluster::link::{Action, PeerAnswer, PeerCall, PeerCallError, PeerOutcome};
use tidegate_core::id::ConnectionId;
use tidegate_telemetry::{Span, SpanKind};

/// Time beyond `limits.slowClientTimeoutSeconds` in which the owner must answer. After that timeout the owner closes a
/// socket that accepts no data, and answers the call.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// Forwards a call to the node that holds `connection`. That node carries it out and never forwards it further. The
/// trace of the call continues there.
///
/// # Errors
/// Returns the error of the owner. Without an answer it returns `Gone` if the owner is gone for good,
/// `OwnerUnreachable` if nothing was sent, or `DeliveryUnknown` if the owner may have carried out the call.
pub(in crate::data_plane) async fn forward(
    plane: &DataPlane,
    record: &CallRecord,
    connection: ConnectionId,
    action: Action,
) -> Result<PeerAnswer, ConnectionsApiError> {
    let mut span = record.span.child("forward", SpanKind::Client);
    if span.is_recording() {
        span.set("tidegate.peer", connection.node());
    }
    let answer = ask(plane, &span, record, connection, action).await;
    if let Err(error) = &answer {
        span.fail(error);
    }
    answer
}

async fn ask(
    plane: &DataPlane,
    span: &Span,
    record: &CallRecord,
    connection: ConnectionId,
    action: Action,
) -> Result<PeerAnswer, ConnectionsApiError> {
    // Without a cluster this node holds all connections.
    let Some(cluster) = &plane.cluster else { return Err(ConnectionsApiError::Gone) };
    let link = match cluster.owner(&connection.node()).await {
        Owner::Linked(link) => link,
        Owner::Gone => return Err(ConnectionsApiError::Gone),
        Owner::Unreachable => return Err(ConnectionsApiError::OwnerUnreachable),
    };
    let within = record.live.settings.limits.slow_client_timeout() + ANSWER_MARGIN;
    let is_get = matches!(action, Action::Get);
    let (api_id, stages) = (record.deployment.api_id.clone(), stages_for(&link, record.stages().as_ref()));
    let call = PeerCall { connection, api_id, trace: span.context(), stages, action };
    match link.call(call, within).await {
        Ok(PeerAnswer::Outcome(PeerOutcome::Gone)) | Err(PeerCallError::Gone) => Err(ConnectionsApiError::Gone),
        Ok(PeerAnswer::Outcome(PeerOutcome::Full)) => Err(ConnectionsApiError::BufferFull),
        Ok(PeerAnswer::Outcome(PeerOutcome::TooLarge)) => Err(ConnectionsApiError::TooLarge),
        Ok(PeerAnswer::Outcome(PeerOutcome::Throttled)) => {
            Err(ConnectionsApiError::UsageExceeded(UsageExceeded::Throttle))
        }
        Ok(PeerAnswer::Outcome(PeerOutcome::QuotaExceeded)) => {
            Err(ConnectionsApiError::UsageExceeded(UsageExceeded::Quota))
        }
        Ok(PeerAnswer::Outcome(PeerOutcome::Unavailable)) | Err(PeerCallError::NotSent) => {
            Err(ConnectionsApiError::OwnerUnreachable)
        }
        Ok(answer @ (PeerAnswer::Outcome(PeerOutcome::Done) | PeerAnswer::Info(_))) => Ok(answer),
        // A GET changes nothing, so the caller may repeat it.
        Err(PeerCallError::Unknown) if is_get => Err(ConnectionsApiError::OwnerUnreachable),
        Err(PeerCallError::Unknown) => Err(ConnectionsApiError::DeliveryUnknown),
    }
}
