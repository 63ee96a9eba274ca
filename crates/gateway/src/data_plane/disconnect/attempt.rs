use std::error::Error;
use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;
use tracing::{Instrument as _, debug, error, warn};

use super::queue::{Attempt, pauses_before};
use super::retired::{DisconnectRoute, Receiver};
use crate::data_plane::answer_actions::act;
use crate::data_plane::context::labels;
use crate::data_plane::integration_call::call_integration;
use crate::data_plane::reasons::of_integration;
use crate::data_plane::{DataPlane, Live};
use crate::deployment::{Deployment, Stage};
use tidegate_connections::groups::Actions;
use tidegate_connections::registry::EndedConnection;
use tidegate_core::error_chain::chain;
use tidegate_core::id::ConnectionId;
use tidegate_core::request_context::{Connection, Event};
use tidegate_core::route_key::DISCONNECT;
use tidegate_core::trace_context::TraceContext;
use tidegate_http::http_client::CallError;
use tidegate_integration::{Answer, IntegrationError, Payload};
use tidegate_telemetry::{EventRecord, Outcome, Reason, Scope, SpanKind, Subject, execution_log};

/// Queues the `$disconnect` of `connection` for its backend, in the queue of its integration.
pub(in crate::data_plane) fn report(plane: &Arc<DataPlane>, connection: &Connection) {
    report_at(plane, connection, Instant::now());
}

/// Does the same as [`report`], but the event is not sent before `due`.
pub(in crate::data_plane) fn report_at(plane: &Arc<DataPlane>, connection: &Connection, due: Instant) {
    let live = plane.live_owned();
    match plane.receiver_of(&live, connection) {
        Receiver::Backend(DisconnectRoute { route, .. }) => {
            let queue = (Arc::clone(&connection.api_id), Arc::clone(&route.integration.id));
            plane.disconnects.add(plane, queue, connection.id, due);
        }
        receiver @ (Receiver::Nobody | Receiver::Unknown) => {
            settle_without_receiver(plane, &live, connection, &receiver);
        }
    }
}

/// Settles a connection whose `$disconnect` has no receiver: its stage has no route for it or is unknown.
fn settle_without_receiver(plane: &DataPlane, live: &Live, connection: &Connection, receiver: &Receiver) {
    if let Some((deployment, stage)) = live.stage(&connection.api_id, &connection.stage) {
        record_without_call(plane, (live, deployment, stage), &connection.id, StatusCode::OK, None);
    }
    if plane.registry.settle(&connection.id) && matches!(receiver, Receiver::Unknown) {
        plane.lost_unknown(connection);
    }
}

/// Records a disconnect without a call of a backend.
fn record_without_call(
    plane: &DataPlane,
    (live, deployment, stage): (&Live, &Deployment, &Stage),
    id: &ConnectionId,
    status: StatusCode,
    reason: Option<Reason>,
) {
    let Some(EndedConnection { connection, closing, attempt, .. }) = plane.registry.get_ended(id) else { return };
    let event = Event::Disconnect { code: closing.code, reason: closing.reason, attempt };
    let context = live.context(plane, deployment, &connection, event, DISCONNECT, id.disconnect_event());
    let span = plane.telemetry.tracer.start(DISCONNECT, SpanKind::Server, None);
    let route = stage.disconnect.as_ref().map_or(&stage.telemetry.default, |route| &route.telemetry);
    let scope = Scope { labels: &labels(&connection), stage: &stage.telemetry, route };
    let subject = Subject::Event(&context);
    let record = EventRecord {
        status: status.as_u16(),
        reason,
        ..EventRecord::new(subject, Outcome::Disconnect, scope, Instant::now(), span.context())
    };
    plane.telemetry.record(&record, span);
}

/// Tries once to deliver the `$disconnect` of the connection `id`. The event's id is computed from the connection's, so
/// every attempt has the same one, whichever node makes it.
pub(in crate::data_plane) async fn attempt(plane: &Arc<DataPlane>, id: &ConnectionId) -> Attempt {
    // A node that drains does not wait: it may never learn if another node sends the event. Both send it with the same
    // id.
    let _ = plane.lifecycle.draining().run_until_cancelled(plane.registry.gate().opened()).await;
    let Some(ended) = plane.registry.begin_attempt(id) else { return Attempt::Dropped };
    let EndedConnection { connection, closing, attempt, since } = ended;
    let live = plane.live_owned();
    let by = match plane.receiver_of(&live, &connection) {
        Receiver::Backend(by) => by,
        receiver @ (Receiver::Nobody | Receiver::Unknown) => {
            settle_without_receiver(plane, &live, &connection, &receiver);
            return Attempt::Settled;
        }
    };
    let DisconnectRoute { live, deployment, stage, route } = &by;
    let event = Event::Disconnect { code: closing.code, reason: closing.reason, attempt };
    let mut context = live.context(plane, deployment, &connection, event, route.key.as_str(), id.disconnect_event());
    let (started, labels) = (Instant::now(), labels(&connection));
    let span = plane.telemetry.tracer.start(DISCONNECT, SpanKind::Server, None);
    let log_span = execution_log::event_span(&route.telemetry, route.key.as_str(), &context.request_id);
    let sent = (None, &Payload::Empty);
    let (outcome, integration) =
        call_integration(plane, live, &labels, (stage, route), &mut context, sent, &span).instrument(log_span).await;
    let error = outcome.as_ref().err();
    let scope = Scope { labels: &labels, stage: &stage.telemetry, route: &route.telemetry };
    let record = EventRecord {
        status: integration.status.unwrap_or(StatusCode::BAD_GATEWAY.as_u16()),
        reason: error.map(of_integration),
        error: error.map(|error| error as &(dyn Error + 'static)),
        integration: Some(integration),
        ..EventRecord::new(Subject::Event(&context), Outcome::Disconnect, scope, started, span.context())
    };
    if is_final(&outcome) {
        debug!(connection_id = %id, attempt, "$disconnect delivered");
        let trace = span.context();
        plane.telemetry.record(&record, span);
        settle(plane, &connection, false);
        act_later(plane, live, &connection, outcome, trace);
        return Attempt::Settled;
    }
    let result = after_failure(plane, live, &connection, (attempt, since), &outcome);
    if result == Attempt::Settled {
        plane.telemetry.record(&record, span);
    }
    result
}

/// Decides if the event of `connection` is sent again, after its attempt number `attempt` failed with `outcome`. `since`
/// is the time at which the connection ended. Gives the event up if its retry time is over.
fn after_failure(
    plane: &DataPlane,
    live: &Live,
    connection: &Connection,
    (attempt, since): (u32, Instant),
    outcome: &Result<(Answer, Actions), IntegrationError>,
) -> Attempt {
    let is_outage = outcome.as_ref().is_err_and(IntegrationError::is_outage);
    let why = match outcome {
        Ok((answer, _)) => format!("status {}", answer.status),
        Err(error) => chain(error).to_string(),
    };
    let next = plane.registry.retry(&connection.id).unwrap_or(attempt + 1);
    let retry = live.settings.disconnect.retry_time();
    if pauses_before(next) > retry || since.elapsed() > retry {
        give_up(plane, connection, attempt, &why);
        return Attempt::Settled;
    }
    if attempt == 1 {
        warn!(
            connection_id = %connection.id, api_id = &*connection.api_id, stage = &*connection.stage, error = why,
            "a backend did not accept a $disconnect; retrying"
        );
    }
    Attempt::Again { attempt: next, is_outage }
}

/// Carries out the actions of a backend's answer, such as messages to other clients, in a task of their own.
fn act_later(
    plane: &Arc<DataPlane>,
    live: &Arc<Live>,
    connection: &Arc<Connection>,
    outcome: Result<(Answer, Actions), IntegrationError>,
    trace: TraceContext,
) {
    if let Ok((_, actions)) = outcome
        && !actions.is_empty()
    {
        let (plane, live, connection) = (Arc::clone(plane), Arc::clone(live), Arc::clone(connection));
        plane.lifecycle.clone().spawn(async move { act(&plane, &live, &connection, actions, trace).await });
    }
}

/// Returns true if the event must not be sent again: the backend answered 2xx, whatever the body, or refused the event
/// with a status that a retry cannot change. A function error is not final.
fn is_final(outcome: &Result<(Answer, Actions), IntegrationError>) -> bool {
    let again = |status: StatusCode| {
        status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status)
    };
    match outcome {
        Ok((answer, _)) => !again(answer.status),
        Err(IntegrationError::Call(CallError::TooLarge { status, .. })) => !again(*status),
        Err(IntegrationError::Redirect(_) | IntegrationError::Unreadable(_)) => true,
        Err(IntegrationError::Call(_) | IntegrationError::Refused(_) | IntegrationError::Function) => false,
    }
}

/// Gives up the event of `id` without another call if its retry time is over. Returns false if it has time left.
pub(in crate::data_plane) fn give_up_if_late(plane: &DataPlane, id: &ConnectionId) -> bool {
    let live = plane.live_owned();
    let retry = live.settings.disconnect.retry_time();
    match plane.registry.get_ended(id) {
        Some(ended) if ended.since.elapsed() > retry => {
            if let Receiver::Backend(DisconnectRoute { live, deployment, stage, .. }) =
                plane.receiver_of(&live, &ended.connection)
            {
                let (status, reason) = (StatusCode::BAD_GATEWAY, Some(Reason::BackendUnreachable));
                record_without_call(plane, (&live, &deployment, &stage), id, status, reason);
            }
            give_up(plane, &ended.connection, ended.attempt - 1, "the backend is unreachable");
            true
        }
        Some(_) => false,
        None => true,
    }
}

fn give_up(plane: &DataPlane, connection: &Connection, attempts: u32, why: &str) {
    error!(
        connection_id = %connection.id, api_id = &*connection.api_id, stage = &*connection.stage,
        event_id = %connection.id.disconnect_event(), attempts, error = why,
        "gave up a $disconnect: the backend does not know that the connection has ended"
    );
    settle(plane, connection, true);
}

fn settle(plane: &DataPlane, connection: &Connection, lost: bool) {
    if plane.registry.settle(&connection.id) && lost {
        plane.telemetry.metrics.disconnect_lost(&labels(connection));
    }
}
