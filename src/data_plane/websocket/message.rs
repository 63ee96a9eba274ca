use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, debug, trace};

use crate::data_plane::context::labels;
use crate::data_plane::gateway_response::{error_frame, failure_status};
use crate::data_plane::integration_call::call_integration;
use crate::data_plane::{DataPlane, Live, MessageError};
use crate::deployment::{Deployment, Route, Stage};
use crate::id::EventId;
use crate::integration::Payload;
use crate::request_context::{Connection, Event, RequestContext};
use crate::session::Frame;
use crate::telemetry::{
    Data, EventRecord, IntegrationRecord, Outcome, Reason, RouteTelemetry, Span, SpanKind, StageLabels, Subject, chain,
    execution_log,
};

/// A message on its way: resolves to the frame that its client gets, if it gets one.
pub(super) type Dispatch = Pin<Box<dyn Future<Output = Option<Frame>> + Send>>;

/// What becomes of a message at once.
pub(super) enum Dispatched {
    /// It is on its way to the backend.
    Calling(Dispatch),
    /// It goes nowhere, and the client is told.
    Failed(Frame),
}

/// Sends one message to the backend of its route.
///
/// 1. select the route  2. throttle  3. integration  4. route response  5. record
pub(super) fn dispatch(plane: &Arc<DataPlane>, connection: &Arc<Connection>, payload: Payload) -> Dispatched {
    let mut message = Message {
        started: Instant::now(),
        request_id: EventId::random(),
        labels: labels(connection),
        span: plane.telemetry.tracer.start("message", SpanKind::Server, None),
        payload,
        reason: None,
        integration: None,
    };
    let live = plane.live_owned();
    let deployment = live.deployments.api(&connection.api_id).cloned();
    let stage = deployment.as_ref().and_then(|deployment| deployment.stage(&connection.stage)).cloned();
    let (Some(deployment), Some(stage)) = (deployment, stage) else {
        // An API or a stage that a reload took away has no routes, and nobody who wants to see anything.
        plane.telemetry.refused(&plane.metrics, Reason::ApiRemoved);
        let reason = live.explain.then_some(Reason::ApiRemoved);
        return Dispatched::Failed(error_frame(&MessageError::NoRoute, connection.id, message.request_id, reason));
    };
    let routed = route(&deployment, &stage, &mut message);
    let at = Place { plane: Arc::clone(plane), connection: Arc::clone(connection), live, deployment, stage };
    match routed {
        Ok(route) => {
            let in_flight = route.telemetry.meters(&plane.metrics, &message.labels).in_flight();
            let log_span = execution_log::event_span(&route.telemetry, &route.key, &message.request_id);
            let dispatch = async move {
                let _in_flight = in_flight;
                let mut context = at.context(&route.key, &message);
                let outcome = call(&at, &route, &mut context, &mut message).await;
                let request_id = context.request_id;
                let reason = at.record(outcome.as_ref().map(Option::as_ref), Some(&route), &context, message);
                outcome.unwrap_or_else(|error| Some(at.error_frame(&error, request_id, reason)))
            };
            Dispatched::Calling(Box::pin(dispatch.instrument(log_span)))
        }
        Err((error, route)) => {
            let key = route.as_ref().map_or("-", |route| &route.key);
            let context = at.context(key, &message);
            let request_id = context.request_id;
            let reason = at.record(Err(&error), route.as_deref(), &context, message);
            Dispatched::Failed(at.error_frame(&error, request_id, reason))
        }
    }
}

/// Where a message is, by the configuration that it met.
struct Place {
    plane: Arc<DataPlane>,
    connection: Arc<Connection>,
    live: Arc<Live>,
    deployment: Arc<Deployment>,
    stage: Arc<Stage>,
}

/// A message, and what happened to it so far.
struct Message {
    payload: Payload,
    request_id: EventId,
    labels: StageLabels,
    started: Instant,
    span: Span,
    /// Why it takes another route than it asked for.
    reason: Option<Reason>,
    integration: Option<IntegrationRecord>,
}

/// Where a message goes; with the route's error the route, if it has one.
fn route(
    deployment: &Deployment,
    stage: &Stage,
    message: &mut Message,
) -> Result<Arc<Route>, (MessageError, Option<Arc<Route>>)> {
    let selected = match &message.payload {
        Payload::Text(text) => deployment.route_selection_expression.evaluate(text),
        Payload::Empty | Payload::Binary(_) => None,
    };
    let route = stage.route(selected.as_deref()).cloned();
    let route = route.ok_or((MessageError::NoRoute, None))?;
    message.reason = fallback(&route, selected.as_deref(), &message.payload);
    if let Some(throttle) = &route.throttle
        && !throttle.throttle.admit()
    {
        return Err((MessageError::Throttled { level: throttle.level }, Some(route)));
    }
    Ok(route)
}

/// Why a message takes `$default`, unless it asked for it.
pub fn fallback(route: &Route, selected: Option<&str>, payload: &Payload) -> Option<Reason> {
    match (selected, payload) {
        _ if &*route.key != "$default" => None,
        (_, Payload::Binary(_)) => Some(Reason::DefaultBinary),
        (None, _) => Some(Reason::DefaultNotJson),
        (Some(""), _) => Some(Reason::DefaultNoValue),
        (Some("$default"), _) => None,
        (Some(_), _) => Some(Reason::DefaultNoMatch),
    }
}

async fn call(
    at: &Place,
    route: &Route,
    context: &mut RequestContext<'_>,
    message: &mut Message,
) -> Result<Option<Frame>, MessageError> {
    let Message { labels, payload, span, .. } = &*message;
    trace!(connection_id = %at.connection.id, route_key = &*route.key, request_id = %message.request_id, "message");
    let (outcome, record) =
        call_integration(&at.plane, labels, (&at.stage, route), context, (None, payload), span).await;
    message.integration = Some(record);
    let answer = outcome.map_err(MessageError::Integration)?;
    if !route.two_way || answer.body.is_empty() {
        return Ok(None);
    }
    let max = at.live.limits.message_bytes;
    if answer.body.len() > max {
        return Err(MessageError::ReplyTooLarge { max });
    }
    Ok(Some(match message.payload {
        // AWS knows no binary messages; here who sends one is answered in kind.
        Payload::Binary(_) => Frame::binary(answer.body),
        Payload::Empty | Payload::Text(_) => Frame::text_lossy(answer.body),
    }))
}

impl Place {
    fn context<'a>(&'a self, route_key: &'a str, message: &Message) -> RequestContext<'a> {
        let event = Event::Message { message_id: EventId::random() };
        self.live.context(&self.plane, &self.deployment, &self.connection, event, route_key, message.request_id)
    }

    /// Records a message that is over, and gives why it did not go as asked for.
    fn record(
        &self,
        outcome: Result<Option<&Frame>, &MessageError>,
        route: Option<&Route>,
        context: &RequestContext<'_>,
        message: Message,
    ) -> Option<Reason> {
        let error = outcome.err();
        let reason = error.map(MessageError::reason).or(message.reason);
        let (status, client_text) = match error {
            Some(error) => {
                let (status, text) = failure_status(error);
                (status.as_u16(), Some(text))
            }
            None => (message.integration.as_ref().and_then(|record| record.status).unwrap_or(200), None),
        };
        let telemetry: &RouteTelemetry = route.map_or(&self.stage.telemetry.default, |route| &route.telemetry);
        let reply = outcome.ok().flatten();
        let record = EventRecord {
            subject: Subject::Event(context),
            outcome: match route {
                Some(_) => Outcome::Message { throttled: error.and_then(MessageError::throttled) },
                None => Outcome::MessageWithoutRoute,
            },
            labels: &message.labels,
            stage: &self.stage.telemetry,
            route: telemetry,
            status,
            reason,
            client_text,
            error: error.map(|error| error as &(dyn Error + 'static)),
            request_bytes: message.payload.len(),
            response_bytes: reply.map_or(0, Frame::len),
            data: telemetry.data_trace.then(|| Data {
                request: message.payload.bytes(),
                response: reply.map(Frame::bytes).unwrap_or_default(),
            }),
            integration: message.integration,
            started: message.started,
            trace: message.span.context(),
        };
        self.plane.telemetry.record(&self.plane.metrics, &record, message.span);
        reason
    }

    fn error_frame(&self, error: &MessageError, request_id: EventId, reason: Option<Reason>) -> Frame {
        let Connection { id, api_id, stage, .. } = &*self.connection;
        debug!(
            connection_id = %id, api_id = &**api_id, stage = &**stage, request_id = %request_id,
            error = %chain(error), "a message failed"
        );
        error_frame(error, *id, request_id, reason.filter(|_| self.live.explain))
    }
}
