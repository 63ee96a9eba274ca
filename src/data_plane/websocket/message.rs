use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, trace};

use super::refresh::refresh;
use crate::data_plane::context::{USAGE_PLAN, labels};
use crate::data_plane::gateway_response::error_frame;
use crate::data_plane::integration_call::call_integration;
use crate::data_plane::{DataPlane, Live, MessageError};
use crate::deployment::{Deployment, Route, Stage};
use crate::id::EventId;
use crate::integration::Payload;
use crate::limits::{Bucket, ConnectionLimitSettings};
use crate::request_context::{Connection, Event};
use crate::session::Frame;
use crate::telemetry::chain;

/// A message on its way: resolves to what its client gets.
pub(super) type Dispatch = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What came of a message.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The frame that the client gets, if it gets one.
    pub(super) frame: Option<Frame>,
    /// The message brought a fresh token: the connection has another end now.
    pub(super) refreshed: bool,
}

/// What becomes of a message at once.
pub(super) enum Dispatched {
    /// It is on its way to the backend.
    Calling(Dispatch),
    /// It goes nowhere, and the client is told.
    Failed(Frame),
}

/// Sends one message to the backend of its route.
///
/// 1. throttles of the connection and its address  2. select the route  3. throttles of route or stage, and of all APIs
/// 4. usage plan  5. integration  6. route response
pub(super) fn dispatch(
    plane: &Arc<DataPlane>,
    connection: &Arc<Connection>,
    bucket: &mut Bucket,
    payload: Payload,
) -> Dispatched {
    let request_id = EventId::random();
    match route(plane, connection, bucket, &payload) {
        Ok(routed) => {
            let (plane, connection) = (Arc::clone(plane), Arc::clone(connection));
            Dispatched::Calling(Box::pin(async move {
                let reply = match &routed.way {
                    Way::Route(route) => {
                        let called = call(&plane, &connection, &routed, route, &payload, request_id).await;
                        called.map(|frame| Reply { frame, refreshed: false })
                    }
                    Way::Refresh => refresh(&plane, &routed.live, &connection, &payload, request_id).await,
                };
                reply.unwrap_or_else(|error| Reply {
                    frame: Some(fail(&connection, &error, request_id)),
                    refreshed: false,
                })
            }))
        }
        Err(error) => Dispatched::Failed(fail(connection, &error, request_id)),
    }
}

/// Where a message goes, by the configuration that it met.
struct Routed {
    live: Arc<Live>,
    deployment: Arc<Deployment>,
    stage: Arc<Stage>,
    way: Way,
}

enum Way {
    Route(Arc<Route>),
    /// The gateway takes the message itself: it brings a fresh token.
    Refresh,
}

fn route(
    plane: &Arc<DataPlane>,
    connection: &Connection,
    bucket: &mut Bucket,
    payload: &Payload,
) -> Result<Routed, MessageError> {
    let live = plane.live_owned();
    let labels = labels(connection);
    let throttled = |level: &'static str| {
        plane.metrics.throttled(&labels, level);
        MessageError::Throttled { level }
    };
    let ConnectionLimitSettings { messages_per_second, message_burst } = live.limits.per_connection;
    if !bucket.admit(messages_per_second, message_burst, Instant::now()) {
        return Err(throttled("connection"));
    }
    if !plane.addresses.admit_message(connection.source_ip, &live.limits.per_address) {
        return Err(throttled("address"));
    }
    let deployment = live.deployments.api(&connection.api_id).cloned();
    let stage = deployment.as_ref().and_then(|deployment| deployment.stage(&connection.stage)).cloned();
    // An API or a stage that a reload took away has no routes.
    let (Some(deployment), Some(stage)) = (deployment, stage) else {
        return Err(MessageError::NoRoute);
    };
    let selected = match payload {
        Payload::Text(text) => deployment.route_selection_expression.evaluate(text),
        Payload::Empty | Payload::Binary(_) => None,
    };
    // Only who came with a token can bring another one.
    let can_refresh = connection.principal.load().as_ref().is_some_and(|principal| principal.has_token());
    let refresh_key = selected.as_deref().filter(|_| can_refresh);
    let refresh_key = refresh_key.filter(|key| live.access.is_refresh(&connection.api_id, &connection.stage, key));
    let (way, throttle) = match refresh_key {
        Some(key) => {
            plane.metrics.message(&labels, Some(&key.into()));
            // A token costs what a connect costs: it takes from the same bucket.
            (Way::Refresh, stage.connect.as_ref().and_then(|connect| connect.throttle.clone()))
        }
        None => {
            let route = stage.route(selected.as_deref()).cloned();
            plane.metrics.message(&labels, route.as_ref().map(|route| &route.key));
            let route = route.ok_or(MessageError::NoRoute)?;
            let throttle = route.throttle.clone();
            (Way::Route(route), throttle)
        }
    };
    if let Some(throttle) = throttle
        && !throttle.throttle.admit()
    {
        return Err(throttled(throttle.level));
    }
    if !live.admit() {
        return Err(throttled("account"));
    }
    drop(selected);
    Ok(Routed { live, deployment, stage, way })
}

async fn call(
    plane: &DataPlane,
    connection: &Connection,
    routed: &Routed,
    route: &Route,
    payload: &Payload,
    request_id: EventId,
) -> Result<Option<Frame>, MessageError> {
    let Routed { live, deployment, stage, .. } = routed;
    if let Some(principal) = connection.principal.load_full() {
        let counted =
            live.access.count(Some(&principal), &connection.api_id, &connection.stage, plane.clock.now()).await;
        counted.map_err(|exceeded| {
            plane.metrics.throttled(&labels(connection), USAGE_PLAN);
            MessageError::UsageExceeded(exceeded)
        })?;
    }
    let event = Event::Message { message_id: EventId::random() };
    let context = live.context(plane, deployment, connection, event, &route.key, request_id);
    trace!(connection_id = %connection.id, route_key = &*route.key, request_id = %request_id, "message");
    let outcome = call_integration(plane, stage, route, &context, None, payload).await;
    let answer = outcome.map_err(MessageError::Integration)?;
    if !route.two_way || answer.body.is_empty() {
        return Ok(None);
    }
    let max = live.limits.message_bytes;
    if answer.body.len() > max {
        return Err(MessageError::ReplyTooLarge { max });
    }
    Ok(Some(match payload {
        // AWS knows no binary messages; here who sends one is answered in kind.
        Payload::Binary(_) => Frame::binary(answer.body),
        Payload::Empty | Payload::Text(_) => Frame::text_lossy(answer.body),
    }))
}

fn fail(connection: &Connection, error: &MessageError, request_id: EventId) -> Frame {
    debug!(
        connection_id = %connection.id, api_id = &*connection.api_id, stage = &*connection.stage,
        request_id = %request_id, error = %chain(error), "a message failed"
    );
    error_frame(error, connection.id, request_id)
}
