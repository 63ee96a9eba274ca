use std::time::Duration;

use super::CallRecord;
use super::reach::stages_for;
use crate::authorizer::UsageExceeded;
use crate::cluster::Owner;
use crate::cluster::link::{Action, Answer, Call, CallError, Outcome};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::id::ConnectionId;
use crate::telemetry::{Span, SpanKind};

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
) -> Result<Answer, ConnectionsApiError> {
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
) -> Result<Answer, ConnectionsApiError> {
    // A node without a cluster holds all connections that there are.
    let Some(cluster) = &plane.cluster else { return Err(ConnectionsApiError::Gone) };
    let link = match cluster.owner(&connection.node()).await {
        Owner::Linked(link) => link,
        Owner::Gone => return Err(ConnectionsApiError::Gone),
        Owner::Unreachable => return Err(ConnectionsApiError::OwnerUnreachable),
    };
    let within = plane.live().limits.slow_client_timeout() + ANSWER_MARGIN;
    let is_get = matches!(action, Action::Get);
    let (api_id, stages) = (record.deployment.api_id.clone(), stages_for(&link, record.stages().as_ref()));
    let call = Call { connection, api_id, trace: span.context(), stages, action };
    match link.call(call, within).await {
        Ok(Answer::Outcome(Outcome::Gone)) | Err(CallError::Gone) => Err(ConnectionsApiError::Gone),
        Ok(Answer::Outcome(Outcome::Full)) => Err(ConnectionsApiError::BufferFull),
        Ok(Answer::Outcome(Outcome::TooLarge)) => Err(ConnectionsApiError::TooLarge),
        Ok(Answer::Outcome(Outcome::Throttled)) => Err(ConnectionsApiError::UsageExceeded(UsageExceeded::Throttle)),
        Ok(Answer::Outcome(Outcome::QuotaExceeded)) => Err(ConnectionsApiError::UsageExceeded(UsageExceeded::Quota)),
        Ok(Answer::Outcome(Outcome::Unavailable)) | Err(CallError::NotSent) => {
            Err(ConnectionsApiError::OwnerUnreachable)
        }
        Ok(answer @ (Answer::Outcome(Outcome::Done) | Answer::Info(_))) => Ok(answer),
        // Asking changes nothing, so it may be asked again.
        Err(CallError::Unknown) if is_get => Err(ConnectionsApiError::OwnerUnreachable),
        Err(CallError::Unknown) => Err(ConnectionsApiError::DeliveryUnknown),
    }
}
