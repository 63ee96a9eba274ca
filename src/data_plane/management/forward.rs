use std::time::Duration;

use super::CallRecord;
use super::reach::stages_for;
use crate::cluster::Owner;
use crate::cluster::link::{Action, PeerAnswer, PeerCall, PeerCallError, PeerOutcome};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::id::ConnectionId;
use crate::telemetry::{Span, SpanKind};
use crate::usage::UsageExceeded;

/// How much longer than `limits.slowClientTimeoutSeconds` the owner may take to answer: after that time a socket that
/// takes nothing is closed there, and the call is answered.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// Asks the node that holds a connection to carry out a call, which is forwarded once and never further. The trace that
/// the call is in goes on there.
///
/// # Errors
/// The owner's own answer, or what can be said without one: gone, unreachable (nothing was written), or unknown.
pub(super) async fn forward(
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
    // A node without a cluster holds all connections that there are.
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
        // Asking changes nothing, so it may be asked again.
        Err(PeerCallError::Unknown) if is_get => Err(ConnectionsApiError::OwnerUnreachable),
        Err(PeerCallError::Unknown) => Err(ConnectionsApiError::DeliveryUnknown),
    }
}
