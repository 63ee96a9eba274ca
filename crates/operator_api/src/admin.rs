use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ALLOW};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::info;

use tidegate_connections::groups::Size;
use tidegate_connections::registry::{Registry, RegistryState, WhenUnavailable};
use tidegate_core::error_chain::chain;
use tidegate_gateway::data_plane::DataPlane;
use tidegate_gateway::data_plane::response::{Body, JSON, json_line, respond};
use tidegate_telemetry::logging;
use tidegate_telemetry::metrics::{self, BackendGauges, Gauges};

/// The OpenAPI 3.1 description of all calls of backends.
const OPENAPI: &str = include_str!("openapi.json");
const OPENAPI_PATH: &str = "/openapi.json";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Longest log filter that is accepted, in bytes.
const FILTER_MAX_BYTES: usize = 4096;

/// Longest time for an operator to send a log filter.
const FILTER_TIMEOUT: Duration = Duration::from_secs(5);

/// The readiness of this node for new connections.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<Phase>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Draining,
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness(Arc::new(watch::Sender::new(Phase::Starting)))
    }
}

impl Readiness {
    /// Marks the node as ready: its listeners are open, and it is registered if it has to be.
    pub fn ready(&self) {
        // A node that begins to drain while it starts never becomes ready.
        self.0.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Ready;
            }
            starting
        });
    }

    /// Marks the node as draining.
    pub fn draining(&self) {
        self.0.send_replace(Phase::Draining);
    }

    /// Waits until the node is ready or draining.
    pub async fn wait(&self) {
        // This cannot fail: the sender is part of self.
        let _ = self.0.subscribe().wait_for(|phase| *phase != Phase::Starting).await;
    }

    /// Returns the state of this node as probes see it.
    fn state(&self, registry: &Registry) -> State {
        let refuses = registry.replica().is_some_and(|replica| replica.when_unavailable() == WhenUnavailable::Refuse);
        let phase = *self.0.borrow();
        let state = |takes_clients, status, reason: Option<String>| State { takes_clients, status, reason };
        match (phase, registry.state()) {
            (Phase::Draining, _) => state(false, "draining", Some("the node is shutting down".to_owned())),
            (_, RegistryState::Starting { why }) => state(false, "starting", Some(why)),
            (Phase::Starting, _) => state(false, "starting", Some("the listeners are not open yet".to_owned())),
            (_, RegistryState::Detached { why } | RegistryState::Degraded { why }) if refuses => {
                state(false, "degraded", Some(why))
            }
            (_, registry) => match registry.degraded() {
                Some(why) => state(true, "degraded", Some(why.to_owned())),
                None => state(true, "ready", None),
            },
        }
    }
}

/// The state of a node as probes see it.
struct State {
    takes_clients: bool,
    status: &'static str,
    /// The reason why the node is not simply ready.
    reason: Option<String>,
}

/// Returns true if `path` is for operators and their probes.
pub fn is_for(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics" | "/version" | "/state" | "/log-level" | OPENAPI_PATH)
}

/// Answers operators and their probes.
pub async fn answer(plane: &DataPlane, readiness: &Readiness, request: &mut Request<Incoming>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::PUT, "/log-level") => set_log_level(request).await,
        (method, path) if *method != Method::GET && *method != Method::HEAD => not_allowed(path),
        (_, "/healthz") => respond(StatusCode::OK, TEXT, "alive\n"),
        (_, "/readyz") => {
            let State { takes_clients, status, reason } = readiness.state(&plane.registry);
            let code = if takes_clients { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json_line(code, &json!({ "status": status, "reasons": Vec::from_iter(reason) }))
        }
        (_, "/metrics") => {
            plane.telemetry.metrics.fill(fill(plane));
            plane.telemetry.metrics.lease_remaining(plane.registry.gate().open_for().unwrap_or_default());
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let (content_type, text) = if metrics::wants_open_metrics(accept) {
                (metrics::OPEN_METRICS, plane.telemetry.metrics.encode())
            } else {
                (metrics::PROMETHEUS_TEXT, plane.telemetry.metrics.encode_prometheus())
            };
            respond(StatusCode::OK, HeaderValue::from_static(content_type), text)
        }
        (_, OPENAPI_PATH) => respond(StatusCode::OK, JSON, OPENAPI.replacen("{version}", env!("CARGO_PKG_VERSION"), 1)),
        (_, "/version") => json_line(StatusCode::OK, &version(plane)),
        (_, "/log-level") => json_line(StatusCode::OK, &json!({ "filter": logging::filter() })),
        _ => respond(StatusCode::OK, JSON, format!("{:#}\n", state(plane, readiness))),
    }
}

fn version(plane: &DataPlane) -> Value {
    json!({ "name": "tidegate", "version": env!("CARGO_PKG_VERSION"), "node": plane.registry.node().to_string() })
}

/// Returns an overview of this node's state.
fn state(plane: &DataPlane, readiness: &Readiness) -> Value {
    let live = plane.live();
    let Gauges { send_buffer_bytes, send_buffer_largest_bytes, groups, group_memberships, backends, pending, .. } =
        fill(plane);
    let State { status, reason, .. } = readiness.state(&plane.registry);
    let apis = live.deployments.iter().map(|deployment| {
        let stages = deployment.stages().map(|stage| {
            let mut routes: Vec<&str> = stage.routes().map(|route| route.key.as_str()).collect();
            routes.sort_unstable();
            (stage.name.to_string(), json!({ "routes": routes, "accessLog": stage.telemetry.access_log.is_some() }))
        });
        (deployment.api_id.to_string(), json!({ "stages": stages.collect::<serde_json::Map<_, _>>() }))
    });
    let backends = backends.into_iter().map(|BackendGauges { backend, open, idle, waiting }| {
        (backend, json!({ "connections": open, "idle": idle, "callsWaiting": waiting }))
    });
    json!({
        "version": version(plane),
        "status": status,
        "reasons": Vec::from_iter(reason),
        "registry": plane.registry.state().name(),
        "time": plane.clock.now().iso_8601(),
        "connections": { "live": plane.registry.live(), "all": plane.registry.len() },
        "disconnectBacklog": { "waiting": plane.registry.backlog().waiting(), "limit": plane.registry.backlog().max() },
        "disconnectEventsPending": pending.iter().map(|(_, count)| count).sum::<usize>(),
        "sendBuffers": { "bytes": send_buffer_bytes, "largestBytes": send_buffer_largest_bytes },
        "groups": { "count": groups, "memberships": group_memberships },
        "backends": backends.collect::<serde_json::Map<_, _>>(),
        "apis": apis.collect::<serde_json::Map<_, _>>(),
        "explain": live.settings.explain,
        "logFilter": logging::filter(),
    })
}

fn fill(plane: &DataPlane) -> Gauges {
    let (send_buffer_bytes, send_buffer_largest_bytes) = plane.registry.buffered_bytes();
    let Size { topics, memberships } = plane.groups.size();
    Gauges {
        send_buffer_bytes,
        send_buffer_largest_bytes,
        groups: topics,
        group_memberships: memberships,
        backends: plane.integrations.backends(),
        pending: plane.pending(),
        disconnect_backlog: plane.registry.backlog().fill(),
    }
}

/// Sets the log filter to the body of the request, in the syntax of `RUST_LOG`.
async fn set_log_level(request: &mut Request<Incoming>) -> Response<Body> {
    let body = Limited::new(request.body_mut(), FILTER_MAX_BYTES).collect();
    let Ok(Ok(body)) = tokio::time::timeout(FILTER_TIMEOUT, body).await else {
        return refused("the body must be a log filter of at most 4096 bytes, sent within 5 seconds");
    };
    let body = body.to_bytes();
    let Ok(filter) = std::str::from_utf8(&body) else { return refused("the body must be text") };
    match logging::set_filter(filter) {
        Ok(()) => {
            info!(filter = filter.trim(), "the log filter was changed");
            json_line(StatusCode::OK, &json!({ "filter": logging::filter() }))
        }
        Err(error) => refused(&chain(&error).to_string()),
    }
}

fn refused(message: &str) -> Response<Body> {
    json_line(StatusCode::BAD_REQUEST, &json!({ "message": message }))
}

fn not_allowed(path: &str) -> Response<Body> {
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new());
    let allowed = if path == "/log-level" { "GET, HEAD, PUT" } else { "GET, HEAD" };
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
