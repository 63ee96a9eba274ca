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
use crate::error_chain::chain;
use crate::http_client::CallError;
use crate::id::EventId;
use crate::integration::{IntegrationError, Payload};
use crate::limits::{Bucket, ConnectionLimitSettings, ThrottleLevel};
use crate::request_context::{Connection, Event, RequestContext};
use crate::route_key::{DEFAULT, RouteKey};
use crate::session::DataFrame;
use crate::telemetry::{
    Data, EventRecord, IntegrationRecord, Outcome, Reason, RouteTelemetry, Span, SpanKind, StageLabels, Subject,
    execution_log,
};

/// A message on its way: resolves to what its client gets.
pub(super) type Dispatch = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What came of a message.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The frame that the client gets, if it gets one.
    pub(super) frame: Option<DataFrame>,
    /// The message brought a fresh token: the connection has another end now.
    pub(super) refreshed: bool,
    /// The backend had no room for it.
    pub(super) refused: bool,
}

/// What becomes of a message at once.
pub(super) enum Dispatched {
    /// It is on its way to the backend.
    Calling(Dispatch),
    /// It goes nowhere, and the client is told.
    Failed(DataFrame),
}

/// Sends one message to the backend of its route, if it `has_room` among the dispatches of its connection.
///
/// 1. throttles of the connection and its address  2. select the route  3. throttles of route or stage, and of all APIs
/// 4. usage plan  5. integration  6. route response  7. record
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
    let deployment = live.deployments.api(&connection.api_id).cloned();
    let stage = deployment.as_ref().and_then(|deployment| deployment.stage(&connection.stage)).cloned();
    let (Some(deployment), Some(stage)) = (deployment, stage) else {
        // An API or a stage that a reload took away has no routes, and nobody who wants to see anything.
        let error = throttled.err().unwrap_or(MessageError::NoRoute);
        let reason = match error {
            MessageError::NoRoute => Reason::ApiRemoved,
            _ => error.reason(),
        };
        if let Some(level) = error.throttled() {
            plane.metrics.throttled(&message.labels, level);
        }
        plane.telemetry.refused(&plane.metrics, reason);
        let reason = Some(reason).filter(|_| live.settings.explain);
        return Dispatched::Failed(error_frame(&error, connection.id, message.request_id, reason));
    };
    let at = Place { plane: Arc::clone(plane), connection: Arc::clone(connection), live, deployment, stage };
    let routed = throttled.map_err(|error| (error, None)).and_then(|()| at.route(&mut message));
    let routed = routed.and_then(|way| match has_room {
        true => Ok(way),
        false => Err((MessageError::Integration(IntegrationError::Call(CallError::Overloaded)), Some(way))),
    });
    match routed {
        Ok(Way::Route(route)) => {
            let in_flight = route.telemetry.meters(&plane.metrics, &message.labels).in_flight();
            let log_span = execution_log::event_span(&route.telemetry, route.key.as_str(), &message.request_id);
            let dispatch = async move {
                let _in_flight = in_flight;
                let mut context = at.context(route.key.as_str(), &message);
                let outcome = call(&at, &route, &mut context, &mut message).await;
                let request_id = context.request_id;
                let way = Some(Taken::of(&route));
                let reason = at.record(outcome.as_ref().map(Option::as_ref), way, &context, message);
                let refused = matches!(&outcome, Err(error) if is_refusal(error));
                let frame = outcome.unwrap_or_else(|error| Some(at.error_frame(&error, request_id, reason)));
                Reply { frame, refreshed: false, refused }
            };
            Dispatched::Calling(Box::pin(dispatch.instrument(log_span)))
        }
        Ok(Way::Refresh(key)) => {
            let log_span = execution_log::event_span(&at.stage.telemetry.default, &key, &message.request_id);
            let dispatch = async move {
                let context = at.context(&key, &message);
                let request_id = context.request_id;
                let outcome = refresh(&at.plane, &at.stage, &at.connection, &message.payload, request_id).await;
                let sent = outcome.as_ref().map(|reply| reply.frame.as_ref());
                let way = Some(Taken::refresh(&at.stage));
                let reason = at.record(sent, way, &context, message);
                outcome.unwrap_or_else(|error| Reply {
                    frame: Some(at.error_frame(&error, request_id, reason)),
                    refreshed: false,
                    refused: false,
                })
            };
            Dispatched::Calling(Box::pin(dispatch.instrument(log_span)))
        }
        Err((error, way)) => {
            let key = match &way {
                Some(Way::Route(route)) => route.key.as_str(),
                Some(Way::Refresh(key)) => key,
                None => "-",
            };
            let taken = match &way {
                Some(Way::Route(route)) => Some(Taken::of(route)),
                Some(Way::Refresh(_)) => Some(Taken::refresh(&at.stage)),
                None => None,
            };
            let context = at.context(key, &message);
            let request_id = context.request_id;
            let reason = at.record(Err(&error), taken, &context, message);
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

/// Who takes a message.
enum Way {
    Route(Arc<Route>),
    /// The gateway takes the message itself, by this key: it brings a fresh token.
    Refresh(String),
}

/// What is recorded of the way that a message took.
struct Taken<'a> {
    telemetry: &'a RouteTelemetry,
    /// Its payload is in no log: it is a token.
    is_secret: bool,
}

impl<'a> Taken<'a> {
    fn of(route: &'a Route) -> Self {
        Taken { telemetry: &route.telemetry, is_secret: false }
    }

    fn refresh(stage: &'a Stage) -> Self {
        Taken { telemetry: &stage.telemetry.default, is_secret: true }
    }
}

/// The throttles of the connection and its address.
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

/// Why a message takes `$default`, unless it asked for it.
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
    at: &Place,
    route: &Route,
    context: &mut RequestContext<'_>,
    message: &mut Message,
) -> Result<Option<DataFrame>, MessageError> {
    let connection = &at.connection;
    if let Some(principal) = connection.principal.load_full() {
        let now = at.plane.clock.now();
        let counted = at.stage.usage.count(Some(&principal), now).await;
        counted.map_err(MessageError::UsageExceeded)?;
    }
    let Message { labels, payload, span, .. } = &*message;
    trace!(connection_id = %at.connection.id, route_key = route.key.as_str(), request_id = %message.request_id, "message");
    let (outcome, record) =
        call_integration(&at.plane, &at.live, labels, (&at.stage, route), context, (None, payload), span).await;
    message.integration = Some(record);
    let (answer, actions) = outcome.map_err(MessageError::Integration)?;
    act(&at.plane, &at.live, connection, actions, message.span.context()).await;
    let Some(body) = answer.body.filter(|_| route.two_way) else { return Ok(None) };
    let max = at.live.settings.limits.message_bytes;
    if body.len() > max {
        return Err(MessageError::ReplyTooLarge { max });
    }
    // AWS knows no binary messages; here who sends one is answered in kind.
    Ok(Some(DataFrame::new(body, message.payload.data_type())))
}

impl Place {
    /// Where a message goes; with the error its way, if it has one.
    fn route(&self, message: &mut Message) -> Result<Way, (MessageError, Option<Way>)> {
        let Place { live, connection, deployment, stage, .. } = self;
        let selected = match &message.payload {
            Payload::Text(text) => deployment.route_selection_expression.evaluate(text),
            Payload::Empty | Payload::Binary(_) => None,
        };
        // Only who came with a token can bring another one.
        let can_refresh = connection.principal.load().as_ref().is_some_and(|principal| principal.has_token());
        let refresh_key = selected.as_deref().filter(|_| can_refresh);
        let refresh_key = refresh_key.filter(|key| stage.access.as_ref().is_some_and(|access| access.is_refresh(key)));
        let (way, throttle) = match refresh_key {
            // A token costs what a connect costs: it takes from the same bucket.
            Some(key) => (Way::Refresh(key.to_owned()), stage.connect.as_ref().and_then(|c| c.throttle.clone())),
            None => {
                let route = stage.route(selected.as_deref()).cloned().ok_or((MessageError::NoRoute, None))?;
                message.reason = fallback(&route, selected.as_deref(), &message.payload);
                let throttle = route.throttle.clone();
                (Way::Route(route), throttle)
            }
        };
        if let Some(throttle) = throttle
            && !throttle.throttle.admit()
        {
            return Err((MessageError::Throttled { level: throttle.level }, Some(way)));
        }
        if !live.admit() {
            return Err((MessageError::Throttled { level: ThrottleLevel::Account }, Some(way)));
        }
        Ok(way)
    }

    fn context<'a>(&'a self, route_key: &'a str, message: &Message) -> RequestContext<'a> {
        let event = Event::Message { message_id: EventId::random() };
        self.live.context(&self.plane, &self.deployment, &self.connection, event, route_key, message.request_id)
    }

    /// Records a message that is over, and gives why it did not go as asked for.
    fn record(
        &self,
        outcome: Result<Option<&DataFrame>, &MessageError>,
        way: Option<Taken<'_>>,
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
        let is_secret = way.as_ref().is_some_and(|taken| taken.is_secret);
        let telemetry = way.as_ref().map_or(&self.stage.telemetry.default, |taken| taken.telemetry);
        let reply = outcome.ok().flatten();
        let record = EventRecord {
            subject: Subject::Event(context),
            outcome: match (way, error) {
                (None, Some(MessageError::NoRoute) | None) => Outcome::MessageWithoutRoute,
                _ => Outcome::Message { throttled: error.and_then(MessageError::throttled) },
            },
            labels: &message.labels,
            stage: &self.stage.telemetry,
            route: telemetry,
            status,
            reason,
            client_text,
            error: error.map(|error| error as &(dyn Error + 'static)),
            authorizer: None,
            request_bytes: message.payload.len(),
            response_bytes: reply.map_or(0, DataFrame::len),
            data: (telemetry.data_trace && !is_secret).then(|| Data {
                request: message.payload.bytes(),
                response: reply.map(DataFrame::bytes).unwrap_or_default(),
            }),
            integration: message.integration,
            started: message.started,
            trace: message.span.context(),
        };
        self.plane.telemetry.record(&self.plane.metrics, &record, message.span);
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
