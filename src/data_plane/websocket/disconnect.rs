use std::error::Error;
use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;
use tracing::{Instrument as _, debug, error, warn};

use crate::data_plane::answer_actions::act;
use crate::data_plane::context::labels;
use crate::data_plane::disconnect_queue::{Attempt, pauses_before};
use crate::data_plane::integration_call::call_integration;
use crate::data_plane::reasons::of_integration;
use crate::data_plane::retired::{Told, Way};
use crate::data_plane::{DataPlane, Live};
use crate::deployment::{Deployment, Stage};
use crate::error_chain::chain;
use crate::groups::Actions;
use crate::http_client::CallError;
use crate::id::ConnectionId;
use crate::integration::{Answer, IntegrationError, Payload};
use crate::registry::EndedConnection;
use crate::request_context::{Connection, Event};
use crate::route_key::DISCONNECT;
use crate::telemetry::{EventRecord, Outcome, Reason, SpanKind, Subject, execution_log};

/// Sees to it that the backend learns that a connection is over. The event waits in the queue of its integration.
pub(super) fn report(plane: &Arc<DataPlane>, connection: &Connection) {
    report_at(plane, connection, Instant::now());
}

/// As [`report`], and not before `due`.
pub(in crate::data_plane) fn report_at(plane: &Arc<DataPlane>, connection: &Connection, due: Instant) {
    match plane.told_of(connection) {
        Told::By(Way { route, .. }) => {
            let queue = (Arc::clone(&connection.api_id), Arc::clone(&route.integration.id));
            plane.disconnects.add(plane, queue, connection.id, due);
        }
        told @ (Told::Nobody | Told::Unknown) => settle_untold(plane, connection, &told),
    }
}

/// The end of a connection of which nobody can be told: its stage never had a route for it, or is not known.
fn settle_untold(plane: &DataPlane, connection: &Connection, told: &Told) {
    let live = plane.live_owned();
    if let Some((deployment, stage)) = live.stage(&connection.api_id, &connection.stage) {
        record_without_call(plane, (&live, deployment, stage), &connection.id, StatusCode::OK, None);
    }
    if plane.registry.settle(&connection.id) && matches!(told, Told::Unknown) {
        plane.lost_unknown(connection);
    }
}

/// Records a disconnect of which no backend is told.
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
    let record = EventRecord {
        subject: Subject::Event(&context),
        outcome: Outcome::Disconnect,
        labels: &labels(&connection),
        stage: &stage.telemetry,
        route: stage.disconnect.as_ref().map_or(&stage.telemetry.default, |route| &route.telemetry),
        status: status.as_u16(),
        reason,
        client_text: None,
        error: None,
        authorizer: None,
        integration: None,
        request_bytes: 0,
        response_bytes: 0,
        data: None,
        started: Instant::now(),
        trace: span.context(),
    };
    plane.telemetry.record(&plane.metrics, &record, span);
}

/// Tries once to deliver a `$disconnect`. The event's id is computed from the connection's, so every attempt, by
/// whomever, has the same.
pub(in crate::data_plane) async fn attempt(plane: &Arc<DataPlane>, id: &ConnectionId) -> Attempt {
    // A node that goes down may not know any more whether others tell the backend: it does so itself, by the same id.
    let _ = plane.lifecycle.draining().run_until_cancelled(plane.registry.gate().opened()).await;
    let Some(ended) = plane.registry.begin_attempt(id) else { return Attempt::Dropped };
    let EndedConnection { connection, closing, attempt, since } = ended;
    let way = match plane.told_of(&connection) {
        Told::By(way) => way,
        told @ (Told::Nobody | Told::Unknown) => {
            settle_untold(plane, &connection, &told);
            return Attempt::Settled;
        }
    };
    let Way { live, deployment, stage, route } = &way;
    let event = Event::Disconnect { code: closing.code, reason: closing.reason, attempt };
    let mut context = live.context(plane, deployment, &connection, event, route.key.as_str(), id.disconnect_event());
    let (started, labels) = (Instant::now(), labels(&connection));
    let span = plane.telemetry.tracer.start(DISCONNECT, SpanKind::Server, None);
    let log_span = execution_log::event_span(&route.telemetry, route.key.as_str(), &context.request_id);
    let sent = (None, &Payload::Empty);
    let (outcome, integration) =
        call_integration(plane, live, &labels, (stage, route), &mut context, sent, &span).instrument(log_span).await;
    let error = outcome.as_ref().err();
    let record = EventRecord {
        subject: Subject::Event(&context),
        outcome: Outcome::Disconnect,
        labels: &labels,
        stage: &stage.telemetry,
        route: &route.telemetry,
        status: integration.status.unwrap_or(StatusCode::BAD_GATEWAY.as_u16()),
        reason: error.map(of_integration),
        client_text: None,
        error: error.map(|error| error as &(dyn Error + 'static)),
        authorizer: None,
        integration: Some(integration),
        request_bytes: 0,
        response_bytes: 0,
        data: None,
        started,
        trace: span.context(),
    };
    if is_final(&outcome) {
        debug!(connection_id = %id, attempt, "the backend knows of the disconnect");
        let trace = span.context();
        plane.telemetry.record(&plane.metrics, &record, span);
        settle(plane, &connection, false);
        if let Ok((_, actions)) = outcome
            && !actions.is_empty()
        {
            // What the backend has to say to others.
            let (plane, live) = (Arc::clone(plane), Arc::clone(live));
            plane.lifecycle.clone().spawn(async move { act(&plane, &live, &connection, actions, trace).await });
        }
        return Attempt::Settled;
    }
    let is_outage = outcome.as_ref().is_err_and(IntegrationError::is_outage);
    let why = match &outcome {
        Ok((answer, _)) => format!("status {}", answer.status),
        Err(error) => chain(error).to_string(),
    };
    let next = plane.registry.retry(id).unwrap_or(attempt + 1);
    let retry = live.settings.disconnect.retry_time();
    if pauses_before(next) > retry || since.elapsed() > retry {
        plane.telemetry.record(&plane.metrics, &record, span);
        give_up(plane, &connection, attempt, &why);
        return Attempt::Settled;
    }
    if attempt == 1 {
        warn!(
            connection_id = %id, api_id = &*connection.api_id, stage = &*connection.stage, error = why,
            "the backend did not take a $disconnect; it is tried again"
        );
    }
    Attempt::Again { attempt: next, is_outage }
}

/// Any 2xx is final whatever its body, but for a function error; so is every refusal that trying again cannot change.
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

/// Gives up an event that waited for as long as it may, without another call. `false` if it has time left.
pub(in crate::data_plane) fn give_up_if_late(plane: &DataPlane, id: &ConnectionId) -> bool {
    let retry = plane.live().settings.disconnect.retry_time();
    match plane.registry.get_ended(id) {
        Some(ended) if ended.since.elapsed() > retry => {
            if let Told::By(Way { live, deployment, stage, .. }) = plane.told_of(&ended.connection) {
                let (status, reason) = (StatusCode::BAD_GATEWAY, Some(Reason::BackendUnreachable));
                record_without_call(plane, (&live, &deployment, &stage), id, status, reason);
            }
            give_up(plane, &ended.connection, ended.attempt - 1, "the backend is away");
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
        "a $disconnect was given up: its backend does not know that the connection is gone"
    );
    settle(plane, connection, true);
}

fn settle(plane: &DataPlane, connection: &Connection, lost: bool) {
    if plane.registry.settle(&connection.id) && lost {
        plane.metrics.disconnect_lost(&labels(connection));
    }
}
