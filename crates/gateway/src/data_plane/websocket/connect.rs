use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;
use tracing::{Instrument as _, debug, warn};

use super::admitted::{Admitted, Connecting};
use crate::data_plane::context::{labels, log_denial};
use crate::data_plane::integration_call::call_integration;
use crate::data_plane::{ConnectError, DataPlane, Live, Refusal, gateway_response};
use crate::deployment::{Deployment, Route, Stage};
use tidegate_access::authorizer::{Client, Denial, StageAccess};
use tidegate_access::iam::Received;
use tidegate_connections::groups::Actions;
use tidegate_core::error_chain::chain;
use tidegate_core::id::{ConnectionId, EventId};
use tidegate_core::limits::{Slot, ThrottleLevel, cut_forwarded_for, cut_header};
use tidegate_core::request_context::{ClientCert, Connection, Event, RequestContext};
use tidegate_core::route_key::CONNECT;
use tidegate_integration::{Answer, Handshake, Payload, remove_hop_by_hop};
use tidegate_language::expression::RouteParameter;
use tidegate_telemetry::{
    AuthorizerRecord, ConnectOutcome, EventRecord, IntegrationRecord, Outcome, Reason, Scope, Sender, Span, SpanKind,
    StageLabels, Subject, execution_log,
};

/// A client's upgrade request whose stage is known.
#[derive(Debug)]
pub struct UpgradeRequest {
    /// The configuration that contains `deployment` and `stage`.
    pub live: Arc<Live>,
    pub deployment: Arc<Deployment>,
    pub stage: Arc<Stage>,
    pub handshake: Handshake,
    /// The Host that the client used, with its port, if it is a name of this gateway; otherwise the address that the
    /// client connected to.
    pub host: String,
    /// True if backends reach `host` by `https`.
    pub callback_secure: bool,
    pub secure: bool,
    pub source_ip: IpAddr,
    /// The port that the client used.
    pub port: u16,
    /// The addresses on the client's way to the gateway, the source first, separated by commas.
    pub forwarded_for: String,
    pub user_agent: Option<String>,
    /// The request before anything was added to it. A signature covers it.
    pub received: http::Request<()>,
    pub client_cert: Option<Arc<ClientCert>>,
    /// True if the listener already counts the connection for its client's address.
    pub is_counted: bool,
    /// The kind of sender. It decides if the trace of the request is recorded.
    pub sender: Sender,
}

/// Admits one client: everything that happens between its upgrade request and the 101.
///
/// 1. throttles of the address, of the route or stage, and of all APIs, and the disconnect backlog  2. authorizer
/// 3. required parameters  4. registry and record  5. `$connect` integration  6. open  7. logs, metrics and trace
///
/// Run it in a task of its own. Then it goes on if the client leaves meanwhile, and a backend that accepts the client
/// gets its `$disconnect`.
///
/// # Errors
/// Returns a [`Refusal`] if the client is not admitted.
pub async fn connect(plane: Arc<DataPlane>, mut request: UpgradeRequest) -> Result<Admitted, Refusal> {
    let started = Instant::now();
    let parent = request.handshake.trace();
    let span = plane.telemetry.tracer.start_for(CONNECT, SpanKind::Server, request.sender, parent);
    request.handshake.name_trace(span.context());
    let live = Arc::clone(&request.live);
    let request_id = EventId::random();
    let connection = Arc::new(new_connection(&plane, &live, &request));
    let labels = labels(&connection);
    let route = request.stage.connect.as_deref();
    let route_telemetry = route.map_or(&request.stage.telemetry.default, |route| &route.telemetry);
    let mut context = live.context(&plane, &request.deployment, &connection, Event::Connect, CONNECT, request_id);
    let log_span = execution_log::event_span(route_telemetry, context.route_key, &request_id);
    let mut found = AdmitRecord::default();
    let with = AdmitContext { request: &request, connection: &connection, live: &live, labels: &labels, span: &span };
    let outcome = Box::pin(admit(&plane, &with, &mut context, &mut found).instrument(log_span)).await;

    let error = outcome.as_ref().err();
    // AWS calls an accepted client 200, not 101.
    let (status, client_text) = error.map_or((StatusCode::OK, None), gateway_response::refusal_status);
    let scope = Scope { labels: &labels, stage: &request.stage.telemetry, route: route_telemetry };
    let result = Outcome::Connect {
        outcome: error.map_or(ConnectOutcome::Accepted, ConnectError::outcome),
        throttled: error.and_then(ConnectError::throttled),
    };
    let record = EventRecord {
        status: status.as_u16(),
        reason: error.map(ConnectError::reason).or(found.subprotocol_left_out.then_some(Reason::SubprotocolLeftOut)),
        client_text: client_text.as_deref(),
        error: error.map(|error| error as &(dyn Error + 'static)),
        authorizer: found.authorizer,
        integration: found.integration,
        ..EventRecord::new(Subject::Event(&context), result, scope, started, span.context())
    };
    plane.telemetry.record(&record, span);
    outcome.map_err(|error| Refusal { error, connection_id: connection.id, request_id })
}

/// Returns the connection that `request` is for, with an id of its own.
fn new_connection(plane: &DataPlane, live: &Live, request: &UpgradeRequest) -> Connection {
    let header_bytes = live.settings.limits.client_header_bytes;
    Connection {
        id: ConnectionId::random(plane.registry.node()),
        api_id: Arc::clone(&request.deployment.api_id),
        stage: Arc::clone(&request.stage.name),
        connected_at: plane.clock.now(),
        configuration: live.number,
        host: request.host.as_str().into(),
        callback_secure: request.callback_secure,
        secure: request.secure,
        source_ip: request.source_ip,
        user_agent: request.user_agent.as_deref().map(|agent| cut_header(agent, header_bytes).into()),
        principal: ArcSwapOption::empty(),
        client_cert: request.client_cert.clone(),
        port: request.port,
        forwarded_for: cut_forwarded_for(&request.forwarded_for, header_bytes).map(Into::into),
        topics: Default::default(),
    }
}

/// The values that every step of an admission needs.
struct AdmitContext<'a> {
    request: &'a UpgradeRequest,
    connection: &'a Arc<Connection>,
    live: &'a Arc<Live>,
    labels: &'a StageLabels,
    span: &'a Span,
}

/// The results of the authorizer and the integration, for the record of the event.
#[derive(Default)]
struct AdmitRecord {
    authorizer: Option<AuthorizerRecord>,
    integration: Option<IntegrationRecord>,
    /// True if the backend chose a subprotocol that the client did not offer, so the client got none.
    subprotocol_left_out: bool,
}

/// Carries out steps 1 to 6 of [`connect`], and notes the results of the authorizer and the integration in `found`.
async fn admit(
    plane: &Arc<DataPlane>,
    with: &AdmitContext<'_>,
    context: &mut RequestContext<'_>,
    found: &mut AdmitRecord,
) -> Result<Admitted, ConnectError> {
    let AdmitContext { request, connection, live, span, .. } = with;
    let route = request.stage.connect.as_deref();
    let slot = throttle(plane, live, request, route)?;
    if plane.registry.backlog().is_full() {
        return Err(ConnectError::Backlog);
    }
    if let Some(access) = &request.stage.access {
        let identified = identify(plane, with, access, context.request_id, &mut found.authorizer).await;
        identified.map_err(ConnectError::Denied)?;
        context.principal = connection.principal.load_full();
    }
    if let Some(missing) = route.and_then(|route| missing_parameter(route, &request.handshake)) {
        return Err(ConnectError::MissingParameter(missing));
    }
    let limit = Some(live.settings.limits.connections).filter(|limit| *limit > 0);
    if !plane.registry.connect(connection, limit.and_then(|limit| usize::try_from(limit).ok())) {
        return Err(ConnectError::Full);
    }
    // From here on the registry knows the connection, so every return removes it or ends it.
    let mut connecting = Connecting::new(plane, live, connection, slot);
    // Recorded first: if this node dies from here on, the backend still gets its `$disconnect`.
    if plane.registry.record(&connection.id).await.is_err() || !plane.registry.gate().is_open() {
        connecting.refuse();
        return Err(ConnectError::Unavailable);
    }
    let actions = match route {
        None => Actions::default(),
        Some(route) => match call_backend(plane, with, route, context, found).await {
            Ok((subprotocol, actions)) => {
                connecting.cold.subprotocol = subprotocol;
                actions
            }
            // The backend may have accepted the client: dropping the connection sends it a `$disconnect`.
            Err(ConnectError::Integration(error)) if error.is_indefinite() => {
                return Err(ConnectError::Integration(error));
            }
            Err(error) => {
                connecting.refuse();
                return Err(error);
            }
        },
    };
    connecting.open(actions, span.context()).await.ok_or(ConnectError::Unavailable)
}

/// Takes a token from each throttle of the client. Returns the place of the connection among those of its address, if
/// the listener has not counted it.
fn throttle(
    plane: &DataPlane,
    live: &Live,
    request: &UpgradeRequest,
    route: Option<&Route>,
) -> Result<Option<Slot>, ConnectError> {
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
    if let Some(throttle) = route.and_then(|route| route.throttle.as_ref())
        && !throttle.throttle.admit()
    {
        return Err(throttled(throttle.level));
    }
    if live.admit() { Ok(slot) } else { Err(throttled(ThrottleLevel::Account)) }
}

/// Calls the `$connect` integration. Returns the subprotocol that the backend chose, and its actions.
async fn call_backend(
    plane: &DataPlane,
    AdmitContext { request, connection, live, labels, span }: &AdmitContext<'_>,
    route: &Route,
    context: &mut RequestContext<'_>,
    found: &mut AdmitRecord,
) -> Result<(Option<HeaderValue>, Actions), ConnectError> {
    let sent = (Some(&request.handshake), &Payload::Empty);
    let (outcome, record) = call_integration(plane, live, labels, (&request.stage, route), context, sent, span).await;
    found.integration = Some(record);
    match outcome {
        Ok((answer, actions)) if answer.status.is_success() => {
            let mut headers = answer.headers;
            remove_hop_by_hop(&mut headers);
            let subprotocol = request.handshake.subprotocol(&headers);
            found.subprotocol_left_out = subprotocol.is_none() && headers.contains_key(SEC_WEBSOCKET_PROTOCOL);
            Ok((subprotocol, actions))
        }
        Ok((answer, _)) => {
            debug!(connection_id = %connection.id, status = answer.status.as_u16(), "the backend refused a client");
            Err(refused(answer))
        }
        Err(error) => {
            warn!(
                connection_id = %connection.id, api_id = &*connection.api_id, stage = &*connection.stage,
                error = %chain(&error), "a $connect call failed"
            );
            Err(ConnectError::Integration(error))
        }
    }
}

/// Authenticates and authorizes the client, and stores its principal on the connection. Logs a denial.
async fn identify(
    plane: &DataPlane,
    AdmitContext { request, connection, live, span, .. }: &AdmitContext<'_>,
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
            log_denial(&denial, &connection.api_id, &connection.stage, "a client was refused");
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

/// Returns the error for a client that the backend refused with `answer`. A status below 200 becomes 502: it cannot
/// answer an upgrade, and only the gateway may send a 101.
fn refused(mut answer: Answer) -> ConnectError {
    if answer.status.is_informational() {
        answer.status = StatusCode::BAD_GATEWAY;
    }
    ConnectError::Refused(Box::new(answer))
}
