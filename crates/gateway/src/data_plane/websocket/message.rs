use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, debug, trace};

use super::refresh::refresh;
use crate::data_plane::answer_actions::act;
use crate::data_plane::context::labels;
use crate::data_plane::gateway_response::{error_frame, failure_status};
use crate::data_plane::integration_call::call_integration;
use crate::data_plane::{DataPlane, Live, MessageError};
use crate::deployment::{Deployment, Route, Stage};
use tidegate_connections::session::DataFrame;
use tidegate_core::error_chain::chain;
use tidegate_core::id::EventId;
use tidegate_core::limits::{Bucket, ConnectionLimitSettings, ThrottleLevel};
use tidegate_core::request_context::{Connection, Event, RequestContext};
use tidegate_core::route_key::{DEFAULT, RouteKey};
use tidegate_http::http_client::CallError;
use tidegate_integration::{IntegrationError, Payload};
use tidegate_telemetry::{
    Data, EventRecord, IntegrationRecord, Outcome, Reason, RouteTelemetry, Scope, Span, SpanKind, StageLabels, Subject,
    execution_log,
};

/// The call for one message. It resolves to the reply for the client.
pub(super) type Dispatch = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// The result of a message.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The frame for the client, if it gets one.
    pub(super) frame: Option<DataFrame>,
    /// True if the message brought a fresh token, so that the connection expires at another time.
    pub(super) refreshed: bool,
    /// True if the message was refused because the backend is saturated.
    pub(super) refused: bool,
}

/// The immediate result of dispatching a message.
pub(super) enum Dispatched {
    /// The call, which has begun.
    Calling(Dispatch),
    /// The error frame for the client of a message that is not sent to a backend.
    Failed(DataFrame),
}

/// Sends one message to the backend of its route. Without `has_room` the connection has as many dispatches as it may,
/// and the message is refused.
///
/// 1. throttles of the connection and its address  2. select the route  3. throttles of the route or stage, and of all
///    APIs  4. usage plan  5. integration  6. route response  7. record
pub(super) fn dispatch(
    plane: &Arc<DataPlane>,
    connection: &Arc<Connection>,
    bucket: &mut Bucket,
    payload: Payload,
    has_room: bool,
) -> Dispatched {
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
    let throttled = throttle_client(plane, &live, connection, bucket);
    let Some((deployment, stage)) = live.stage(&connection.api_id, &connection.stage) else {
        let error = throttled.err().unwrap_or(MessageError::NoRoute);
        return Dispatched::Failed(refuse_without_stage(plane, &live, connection, &message, &error));
    };
    let (deployment, stage) = (Arc::clone(deployment), Arc::clone(stage));
    let handler = Handler { plane: Arc::clone(plane), connection: Arc::clone(connection), live, deployment, stage };
    let routed = throttled.map_err(|error| (error, None)).and_then(|()| handler.route(&mut message));
    let routed = routed.and_then(|destination| match has_room {
        true => Ok(destination),
        false => Err((MessageError::Integration(IntegrationError::Call(CallError::Overloaded)), Some(destination))),
    });
    match routed {
        Ok(Destination::Route(route)) => Dispatched::Calling(handler.call_backend(route, message)),
        Ok(Destination::Refresh(key)) => Dispatched::Calling(handler.refresh_token(key, message)),
        Err((error, destination)) => Dispatched::Failed(handler.fail(&error, destination.as_ref(), message)),
    }
}

/// Refuses a message for an API or a stage that a reload removed, which has no routes and no logs. Returns the error
/// frame.
fn refuse_without_stage(
    plane: &DataPlane,
    live: &Live,
    connection: &Connection,
    message: &Message,
    error: &MessageError,
) -> DataFrame {
    let reason = match error {
        MessageError::NoRoute => Reason::ApiRemoved,
        _ => error.reason(),
    };
    if let Some(level) = error.throttled() {
        plane.telemetry.metrics.throttled(&message.labels, level);
    }
    plane.telemetry.refused(reason);
    error_frame(error, connection.id, message.request_id, Some(reason).filter(|_| live.settings.explain))
}

/// The connection of a message, with the configuration, API and stage in which it is handled.
struct Handler {
    plane: Arc<DataPlane>,
    connection: Arc<Connection>,
    live: Arc<Live>,
    deployment: Arc<Deployment>,
    stage: Arc<Stage>,
}

/// A message, with the results so far.
struct Message {
    payload: Payload,
    request_id: EventId,
    labels: StageLabels,
    started: Instant,
    span: Span,
    /// The reason why the message takes `$default`, if it does not select that route itself.
    reason: Option<Reason>,
    integration: Option<IntegrationRecord>,
}

/// The receiver of a message.
enum Destination {
    /// The backend of a route.
    Route(Arc<Route>),
    /// The gateway itself: the message has this route key and brings a fresh token.
    Refresh(String),
}

/// The values that the record of a message needs about its receiver.
#[derive(Clone, Copy)]
struct RecordedRoute<'a> {
    telemetry: &'a RouteTelemetry,
    /// True if the payload must not be logged, because it is a token.
    is_secret: bool,
}

impl<'a> RecordedRoute<'a> {
    fn of(route: &'a Route) -> Self {
        RecordedRoute { telemetry: &route.telemetry, is_secret: false }
    }

    fn refresh(stage: &'a Stage) -> Self {
        RecordedRoute { telemetry: &stage.telemetry.default, is_secret: true }
    }
}

/// Applies the throttles of the connection and its address to one message.
fn throttle_client(
    plane: &DataPlane,
    live: &Live,
    connection: &Connection,
    bucket: &mut Bucket,
) -> Result<(), MessageError> {
    let ConnectionLimitSettings { messages_per_second, message_burst } = live.settings.limits.per_connection;
    if !bucket.admit(messages_per_second, message_burst, Instant::now()) {
        return Err(MessageError::Throttled { level: ThrottleLevel::Connection });
    }
    if !plane.addresses.admit_message(connection.source_ip, &live.settings.limits.per_address) {
        return Err(MessageError::Throttled { level: ThrottleLevel::Address });
    }
    Ok(())
}

fn is_refusal(error: &MessageError) -> bool {
    matches!(error, MessageError::Integration(IntegrationError::Call(CallError::Overloaded)))
}

/// Returns the reason why a message takes `$default`, or `None` if it takes another route or selects `$default` itself.
pub fn fallback(route: &Route, selected: Option<&str>, payload: &Payload) -> Option<Reason> {
    match (selected, payload) {
        _ if route.key != RouteKey::Default => None,
        (_, Payload::Binary(_)) => Some(Reason::DefaultBinary),
        (None, _) => Some(Reason::DefaultNotJson),
        (Some(""), _) => Some(Reason::DefaultNoValue),
        (Some(DEFAULT), _) => None,
        (Some(_), _) => Some(Reason::DefaultNoMatch),
    }
}

async fn call(
    handler: &Handler,
    route: &Route,
    context: &mut RequestContext<'_>,
    message: &mut Message,
) -> Result<Option<DataFrame>, MessageError> {
    let connection = &handler.connection;
    if let Some(principal) = connection.principal.load_full() {
        let now = handler.plane.clock.now();
        let counted = handler.stage.usage.count(Some(&principal), now).await;
        counted.map_err(MessageError::UsageExceeded)?;
    }
    let Message { labels, payload, span, .. } = &*message;
    trace!(connection_id = %handler.connection.id, route_key = route.key.as_str(), request_id = %message.request_id, "message");
    let (outcome, record) = call_integration(
        &handler.plane,
        &handler.live,
        labels,
        (&handler.stage, route),
        context,
        (None, payload),
        span,
    )
    .await;
    message.integration = Some(record);
    let (answer, actions) = outcome.map_err(MessageError::Integration)?;
    act(&handler.plane, &handler.live, connection, actions, message.span.context()).await;
    let Some(body) = answer.body.filter(|_| route.two_way) else { return Ok(None) };
    let max = handler.live.settings.limits.message_bytes;
    if body.len() > max {
        return Err(MessageError::ReplyTooLarge { max });
    }
    // AWS has no binary messages. Here the reply to a binary message is binary too.
    Ok(Some(DataFrame::new(body, message.payload.data_type())))
}

impl Handler {
    /// Selects the receiver of a message and applies its throttles.
    ///
    /// # Errors
    /// Returns `NoRoute` if no route matches, or `Throttled` with the receiver if a throttle is exceeded.
    fn route(&self, message: &mut Message) -> Result<Destination, (MessageError, Option<Destination>)> {
        let Handler { live, connection, deployment, stage, .. } = self;
        let selected = match &message.payload {
            Payload::Text(text) => deployment.route_selection_expression.evaluate(text),
            Payload::Empty | Payload::Binary(_) => None,
        };
        // Only a client that connected with a token can send a new one.
        let can_refresh = connection.principal.load().as_ref().is_some_and(|principal| principal.has_token());
        let refresh_key = selected.as_deref().filter(|_| can_refresh);
        let refresh_key = refresh_key.filter(|key| stage.access.as_ref().is_some_and(|access| access.is_refresh(key)));
        let (destination, throttle) = match refresh_key {
            // A fresh token is checked as at a connect, so it uses the throttle of `$connect`.
            Some(key) => {
                (Destination::Refresh(key.to_owned()), stage.connect.as_ref().and_then(|c| c.throttle.clone()))
            }
            None => {
                let route = stage.route(selected.as_deref()).cloned().ok_or((MessageError::NoRoute, None))?;
                message.reason = fallback(&route, selected.as_deref(), &message.payload);
                let throttle = route.throttle.clone();
                (Destination::Route(route), throttle)
            }
        };
        if let Some(throttle) = throttle
            && !throttle.throttle.admit()
        {
            return Err((MessageError::Throttled { level: throttle.level }, Some(destination)));
        }
        if !live.admit() {
            return Err((MessageError::Throttled { level: ThrottleLevel::Account }, Some(destination)));
        }
        Ok(destination)
    }

    /// Returns the dispatch that sends `message` to the backend of `route`.
    fn call_backend(self, route: Arc<Route>, mut message: Message) -> Dispatch {
        let in_flight = route.telemetry.meters(&self.plane.telemetry.metrics, &message.labels).in_flight();
        let log_span = execution_log::event_span(&route.telemetry, route.key.as_str(), &message.request_id);
        let dispatch = async move {
            let _in_flight = in_flight;
            let mut context = self.context(route.key.as_str(), &message);
            let outcome = call(&self, &route, &mut context, &mut message).await;
            let request_id = context.request_id;
            let sent = outcome.as_ref().map(Option::as_ref);
            let reason = self.record(sent, Some(RecordedRoute::of(&route)), &context, message);
            let refused = matches!(&outcome, Err(error) if is_refusal(error));
            let frame = outcome.unwrap_or_else(|error| Some(self.error_frame(&error, request_id, reason)));
            Reply { frame, refreshed: false, refused }
        };
        Box::pin(dispatch.instrument(log_span))
    }

    /// Returns the dispatch that checks the fresh token in `message`, whose route key is `key`.
    fn refresh_token(self, key: String, message: Message) -> Dispatch {
        let log_span = execution_log::event_span(&self.stage.telemetry.default, &key, &message.request_id);
        let dispatch = async move {
            let context = self.context(&key, &message);
            let request_id = context.request_id;
            let outcome = refresh(&self.plane, &self.stage, &self.connection, &message.payload, request_id).await;
            let sent = outcome.as_ref().map(|reply| reply.frame.as_ref());
            let reason = self.record(sent, Some(RecordedRoute::refresh(&self.stage)), &context, message);
            outcome.unwrap_or_else(|error| Reply {
                frame: Some(self.error_frame(&error, request_id, reason)),
                refreshed: false,
                refused: false,
            })
        };
        Box::pin(dispatch.instrument(log_span))
    }

    /// Records that `message` was refused before its dispatch began. Returns the error frame.
    fn fail(&self, error: &MessageError, destination: Option<&Destination>, message: Message) -> DataFrame {
        let (key, recorded) = match destination {
            Some(Destination::Route(route)) => (route.key.as_str(), Some(RecordedRoute::of(route))),
            Some(Destination::Refresh(key)) => (key.as_str(), Some(RecordedRoute::refresh(&self.stage))),
            None => ("-", None),
        };
        let context = self.context(key, &message);
        let request_id = context.request_id;
        let reason = self.record(Err(error), recorded, &context, message);
        self.error_frame(error, request_id, reason)
    }

    fn context<'a>(&'a self, route_key: &'a str, message: &Message) -> RequestContext<'a> {
        let event = Event::Message { message_id: EventId::random() };
        self.live.context(&self.plane, &self.deployment, &self.connection, event, route_key, message.request_id)
    }

    /// Records a message that is finished. Returns the reason if it failed or took `$default` without selecting it.
    fn record(
        &self,
        outcome: Result<Option<&DataFrame>, &MessageError>,
        recorded: Option<RecordedRoute<'_>>,
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
        let is_secret = recorded.as_ref().is_some_and(|recorded| recorded.is_secret);
        let telemetry = recorded.as_ref().map_or(&self.stage.telemetry.default, |recorded| recorded.telemetry);
        let reply = outcome.ok().flatten();
        let result = match (&recorded, error) {
            (None, Some(MessageError::NoRoute) | None) => Outcome::MessageWithoutRoute,
            _ => Outcome::Message { throttled: error.and_then(MessageError::throttled) },
        };
        let scope = Scope { labels: &message.labels, stage: &self.stage.telemetry, route: telemetry };
        let (started, trace) = (message.started, message.span.context());
        let record = EventRecord {
            status,
            reason,
            client_text,
            error: error.map(|error| error as &(dyn Error + 'static)),
            integration: message.integration,
            request_bytes: message.payload.len(),
            response_bytes: reply.map_or(0, DataFrame::len),
            data: (telemetry.data_trace && !is_secret).then(|| Data {
                request: message.payload.bytes(),
                response: reply.map(DataFrame::bytes).unwrap_or_default(),
            }),
            ..EventRecord::new(Subject::Event(context), result, scope, started, trace)
        };
        self.plane.telemetry.record(&record, message.span);
        reason
    }

    fn error_frame(&self, error: &MessageError, request_id: EventId, reason: Option<Reason>) -> DataFrame {
        let Connection { id, api_id, stage, .. } = &*self.connection;
        debug!(
            connection_id = %id, api_id = &**api_id, stage = &**stage, request_id = %request_id,
            error = %chain(error), "a message failed"
        );
        error_frame(error, *id, request_id, reason.filter(|_| self.live.settings.explain))
    }
}
