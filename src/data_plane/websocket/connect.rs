use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;
use tracing::{Instrument as _, debug, warn};

use super::disconnect::report;
use crate::apigatewayv2::LoggingLevel;
use crate::authorizer::{Client, Denial, StageAccess};
use crate::data_plane::answer_actions::{act, name_user};
use crate::data_plane::context::{labels, log_denial};
use crate::data_plane::integration_call::call_integration;
use crate::data_plane::{ConnectError, DataPlane, Live, Refusal, gateway_response};
use crate::deployment::{Deployment, Route, Stage};
use crate::error_chain::chain;
use crate::expression::RouteParameter;
use crate::groups::Actions;
use crate::iam::Received;
use crate::id::{ConnectionId, EventId};
use crate::integration::{Answer, Handshake, Payload, remove_hop_by_hop};
use crate::limits::{Bucket, Slot, ThrottleLevel, cut_forwarded_for, cut_header};
use crate::request_context::{ClientCert, Connection, Event, RequestContext};
use crate::route_key::CONNECT;
use crate::session::{Closing, Outbox};
use crate::telemetry::{
    AuthorizerRecord, ConnectOutcome, EventRecord, IntegrationRecord, Outcome, Reason, Sender, Span, SpanKind,
    StageLabels, Subject, execution_log,
};
use crate::trace_context::TraceContext;

/// A client's upgrade request, once it is known which stage it is for.
#[derive(Debug)]
pub struct UpgradeRequest {
    /// The configuration that `deployment` and `stage` are of.
    pub live: Arc<Live>,
    pub deployment: Arc<Deployment>,
    pub stage: Arc<Stage>,
    pub handshake: Handshake,
    /// The Host that the client used, with its port, if it is a name of this gateway; else the address that it connected
    /// to.
    pub host: String,
    /// A backend reaches that host by `https`.
    pub callback_secure: bool,
    pub secure: bool,
    pub source_ip: IpAddr,
    /// The port that the client used.
    pub port: u16,
    /// The addresses on its way, the source first, separated by commas.
    pub forwarded_for: String,
    pub user_agent: Option<String>,
    /// The request before anything was added to it: what a signature is about.
    pub received: http::Request<()>,
    pub client_cert: Option<Arc<ClientCert>>,
    /// The listener counts the connection for its client's address already.
    pub is_counted: bool,
    /// Decides whether the trace that came along is made.
    pub sender: Sender,
}

/// A client that the backend let in. Whoever holds it owes it a session: dropped without one, the connection ends as
/// lost and its backend is told.
pub struct Admitted {
    pub(super) plane: Arc<DataPlane>,
    pub(super) connection: Arc<Connection>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) live: Arc<Live>,
    /// The registry has let go of it; nobody is to be told.
    forgotten: bool,
    /// It was opened, and is not over.
    is_open: bool,
    /// In a box: the task of a session is small.
    pub(super) particulars: Box<Particulars>,
}

/// What a session does not touch while it is idle.
pub(super) struct Particulars {
    subprotocol: Option<HeaderValue>,
    /// Of its messages.
    pub(super) bucket: Bucket,
    /// Its place among the connections of its address, if the listener does not count it.
    _slot: Option<Slot>,
}

/// Admits one client: all that happens between its upgrade request and the 101.
///
/// 1. throttles of the address, of route or stage, and of all APIs, and room for its end  2. who it is
/// 3. required parameters  4. registry, and its record  5. `$connect` integration  6. open  7. what operators see
///
/// Run it in a task of its own: a client that leaves meanwhile does not stop it, and if the backend accepts, the
/// backend gets its `$disconnect`.
///
/// # Errors
/// The client is to be refused.
pub async fn connect(plane: Arc<DataPlane>, mut request: UpgradeRequest) -> Result<Admitted, Refusal> {
    let started = Instant::now();
    let parent = request.handshake.trace();
    let span = plane.telemetry.tracer.start_for(CONNECT, SpanKind::Server, request.sender, parent);
    request.handshake.name_trace(span.context());
    let live = Arc::clone(&request.live);
    let request_id = EventId::random();
    let connection = Arc::new(Connection {
        id: ConnectionId::random(plane.registry.node()),
        api_id: Arc::clone(&request.deployment.api_id),
        stage: Arc::clone(&request.stage.name),
        connected_at: plane.clock.now(),
        configuration: live.number,
        host: request.host.as_str().into(),
        callback_secure: request.callback_secure,
        secure: request.secure,
        source_ip: request.source_ip,
        user_agent: request
            .user_agent
            .as_deref()
            .map(|agent| cut_header(agent, live.settings.limits.client_header_bytes).into()),
        principal: ArcSwapOption::empty(),
        client_cert: request.client_cert.clone(),
        port: request.port,
        forwarded_for: cut_forwarded_for(&request.forwarded_for, live.settings.limits.client_header_bytes)
            .map(Into::into),
        topics: Default::default(),
    });
    let labels = labels(&connection);
    let route = request.stage.connect.as_deref();
    let route_telemetry = route.map_or(&request.stage.telemetry.default, |route| &route.telemetry);
    let mut context = live.context(&plane, &request.deployment, &connection, Event::Connect, CONNECT, request_id);
    let log_span = execution_log::event_span(route_telemetry, context.route_key, &request_id);
    let mut asked = Asked::default();
    let parts = Parts { request: &request, connection: &connection, live: &live, labels: &labels, span: &span };
    let outcome = Box::pin(admit(&plane, &parts, &mut context, &mut asked).instrument(log_span)).await;

    let error = outcome.as_ref().err();
    // AWS calls an accepted client 200, not 101.
    let (status, client_text) = error.map_or((StatusCode::OK, None), gateway_response::refusal_status);
    let record = EventRecord {
        subject: Subject::Event(&context),
        outcome: Outcome::Connect {
            outcome: error.map_or(ConnectOutcome::Accepted, ConnectError::outcome),
            throttled: error.and_then(ConnectError::throttled),
        },
        labels: &labels,
        stage: &request.stage.telemetry,
        route: route_telemetry,
        status: status.as_u16(),
        reason: error.map(ConnectError::reason).or(asked.subprotocol_left_out.then_some(Reason::SubprotocolLeftOut)),
        client_text: client_text.as_deref(),
        error: error.map(|error| error as &(dyn Error + 'static)),
        authorizer: asked.authorizer,
        integration: asked.integration,
        request_bytes: 0,
        response_bytes: 0,
        data: None,
        started,
        trace: span.context(),
    };
    plane.telemetry.record(&plane.metrics, &record, span);
    outcome.map_err(|error| Refusal { error, connection_id: connection.id, request_id })
}

/// What admitting works with.
struct Parts<'a> {
    request: &'a UpgradeRequest,
    connection: &'a Arc<Connection>,
    live: &'a Arc<Live>,
    labels: &'a StageLabels,
    span: &'a Span,
}

/// Who was asked about a client, and what they said.
#[derive(Default)]
struct Asked {
    authorizer: Option<AuthorizerRecord>,
    integration: Option<IntegrationRecord>,
    /// The backend chose a subprotocol that the client did not offer, so it got none.
    subprotocol_left_out: bool,
}

/// Steps 1 to 6. Leaves in `asked` what others said.
async fn admit(
    plane: &Arc<DataPlane>,
    parts: &Parts<'_>,
    context: &mut RequestContext<'_>,
    asked: &mut Asked,
) -> Result<Admitted, ConnectError> {
    let Parts { request, connection, live, labels, span } = parts;
    let throttled = |level| ConnectError::Throttled { level };
    let per_address = &live.settings.limits.per_address;
    if !plane.addresses.admit_connect(request.source_ip, per_address) {
        return Err(throttled(ThrottleLevel::Address));
    }
    let slot = match request.is_counted {
        true => None,
        false => {
            plane.addresses.hold(request.source_ip, per_address).ok_or_else(|| throttled(ThrottleLevel::Address))?
        }
    };
    let route = request.stage.connect.as_deref();
    if let Some(throttle) = route.and_then(|route| route.throttle.as_ref())
        && !throttle.throttle.admit()
    {
        return Err(throttled(throttle.level));
    }
    if !live.admit() {
        return Err(throttled(ThrottleLevel::Account));
    }
    if plane.registry.backlog().is_full() {
        return Err(ConnectError::Backlog);
    }
    if let Some(access) = &request.stage.access {
        identify(plane, parts, access, context.request_id, &mut asked.authorizer)
            .await
            .map_err(ConnectError::Denied)?;
        context.principal = connection.principal.load_full();
    }
    if let Some(missing) = route.and_then(|route| missing_parameter(route, &request.handshake)) {
        return Err(ConnectError::MissingParameter(missing));
    }
    let limit = Some(live.settings.limits.connections).filter(|limit| *limit > 0);
    if !plane.registry.connect(connection, limit.and_then(|limit| usize::try_from(limit).ok())) {
        return Err(ConnectError::Full);
    }
    // From here on the registry knows the connection, so every way out removes or ends it.
    let mut admitted = Admitted {
        plane: Arc::clone(plane),
        outbox: Arc::new(Outbox::new(live.settings.limits.send_buffer_bytes, connection.connected_at)),
        connection: Arc::clone(connection),
        live: Arc::clone(live),
        forgotten: false,
        is_open: false,
        particulars: Box::new(Particulars { subprotocol: None, bucket: Bucket::new(Instant::now()), _slot: slot }),
    };
    // Recorded first: if this node dies from here on, the backend still gets its `$disconnect`.
    if plane.registry.record(&connection.id).await.is_err() || !plane.registry.gate().is_open() {
        admitted.refused();
        return Err(ConnectError::Unavailable);
    }
    let Some(route) = route else {
        return admitted.open(Actions::default(), span.context()).await.ok_or(ConnectError::Unavailable);
    };
    let sent = (Some(&request.handshake), &Payload::Empty);
    let (outcome, record) = call_integration(plane, live, labels, (&request.stage, route), context, sent, span).await;
    asked.integration = Some(record);
    match outcome {
        Ok((answer, actions)) if answer.status.is_success() => {
            let mut headers = answer.headers;
            remove_hop_by_hop(&mut headers);
            admitted.particulars.subprotocol = request.handshake.subprotocol(&headers);
            asked.subprotocol_left_out =
                admitted.particulars.subprotocol.is_none() && headers.contains_key(SEC_WEBSOCKET_PROTOCOL);
            admitted.open(actions, span.context()).await.ok_or(ConnectError::Unavailable)
        }
        Ok((answer, _)) => {
            debug!(connection_id = %connection.id, status = answer.status.as_u16(), "the backend refused a client");
            admitted.refused();
            Err(refused(answer))
        }
        Err(error) => {
            warn!(
                connection_id = %connection.id, api_id = &*connection.api_id, stage = &*connection.stage,
                error = %chain(&error), "a $connect call failed"
            );
            if error.is_indefinite() {
                // The backend may have accepted: it learns that nothing came of it.
                admitted.end(Closing::lost());
            } else {
                admitted.refused();
            }
            Err(ConnectError::Integration(error))
        }
    }
}

/// Finds out who the client is, and keeps it on the connection. Says to the operator why not, and to nobody else.
async fn identify(
    plane: &DataPlane,
    Parts { request, connection, live, span, .. }: &Parts<'_>,
    access: &StageAccess,
    request_id: EventId,
    record: &mut Option<AuthorizerRecord>,
) -> Result<(), Denial> {
    let mut context = live.context(plane, &request.deployment, connection, Event::Connect, CONNECT, request_id);
    context.trace = Some(span.context());
    let received = &request.received;
    let client = Client {
        context: &context,
        stage_variables: &request.stage.variables,
        handshake: &request.handshake,
        received: Received { method: received.method(), uri: received.uri(), headers: received.headers() },
    };
    let keys = (&live.access.api_keys, &*request.stage.usage);
    match access.admit(client, keys, plane.clock.now(), record).await {
        Ok(principal) => {
            connection.principal.store(Some(principal));
            Ok(())
        }
        Err(denial) => {
            log_denial(&denial, &connection.api_id, &connection.stage, "a client may not enter");
            Err(denial)
        }
    }
}

fn missing_parameter(route: &Route, handshake: &Handshake) -> Option<String> {
    let is_missing = |parameter: &&RouteParameter| match parameter {
        RouteParameter::QueryString(name) => handshake.query_values(name).is_empty(),
        RouteParameter::Header(name) => !handshake.headers.contains_key(name),
    };
    route.required_parameters.iter().find(is_missing).map(|parameter| match parameter {
        RouteParameter::QueryString(name) => name.clone(),
        RouteParameter::Header(name) => name.to_string(),
    })
}

/// A status below 200 is no answer to an upgrade: only the gateway may say 101.
fn refused(mut answer: Answer) -> ConnectError {
    if answer.status.is_informational() {
        answer.status = StatusCode::BAD_GATEWAY;
    }
    ConnectError::Refused(Box::new(answer))
}

impl Admitted {
    /// Takes what the backend chose, for the 101; the gateway never picks a subprotocol itself.
    pub fn take_subprotocol(&mut self) -> Option<HeaderValue> {
        self.particulars.subprotocol.take()
    }

    /// What an operator wants to see of the connection.
    pub(super) fn logging_level(&self) -> LoggingLevel {
        let deployment = self.live.deployments.api(&self.connection.api_id);
        let stage = deployment.and_then(|deployment| deployment.stage(&self.connection.stage));
        stage.map(|stage| stage.telemetry.default.logging_level).unwrap_or_default()
    }

    /// From now on it is served, and in what its backend put it. `None` if the node may not serve it, now or at all: then
    /// its backend is told that it is over.
    async fn open(mut self, actions: Actions, trace: TraceContext) -> Option<Self> {
        let registry = &self.plane.registry;
        if !registry.gate().opened_in_time().await {
            self.end(Closing::isolated());
            return None;
        }
        if !registry.open(&self.connection.id, Arc::clone(&self.outbox)) {
            self.end(Closing::fenced());
            return None;
        }
        self.plane.metrics.opened(&labels(&self.connection));
        self.is_open = true;
        name_user(&self.plane, &self.live, &self.connection).await;
        act(&self.plane, &self.live, &self.connection, actions, trace).await;
        debug!(connection_id = %self.connection.id, "connected");
        Some(self)
    }

    /// The backend said no: as if the connection had never been.
    fn refused(mut self) {
        self.plane.registry.refuse(&self.connection.id);
        self.forgotten = true;
    }

    /// The connection is over: it is no longer served, and posts to it are gone. Its backend is told when this is
    /// dropped.
    pub(super) fn end(&mut self, closing: Closing) {
        if std::mem::take(&mut self.is_open) {
            self.plane.metrics.closed(&labels(&self.connection), closing.cause.name(), closing.code);
        }
        self.plane.registry.end(&self.connection.id, closing);
        self.plane.groups.end(&self.connection);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if !self.forgotten {
            self.end(Closing::lost());
            // After this node was fenced it may be with others.
            if self.plane.registry.get_ended(&self.connection.id).is_some() {
                report(&self.plane, &self.connection);
            }
        }
    }
}
