use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tracing::info;

use crate::data_plane::DataPlane;
use crate::data_plane::gateway_response::Body;
use crate::telemetry::metrics::{self, BackendFill, Fill};
use crate::telemetry::{chain, logging};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Longest filter that is read, in bytes.
const FILTER_MAX_BYTES: usize = 4096;

/// How long an operator may take to send one.
const FILTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether this node may be sent new connections.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Both listeners are up.
    pub fn ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    /// The node goes down.
    pub fn draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    /// What this node is, and why it may not be sent new connections: ready if there is no reason.
    fn state(&self) -> (&'static str, Vec<&'static str>) {
        match self.0.load(Ordering::Acquire) {
            STARTING => ("starting", vec!["the listeners are not open yet"]),
            READY => ("ready", Vec::new()),
            _ => ("draining", vec!["the node goes down"]),
        }
    }
}

/// Whether a path is for operators and their probes.
pub(super) fn is_for(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics" | "/version" | "/state" | "/log-level")
}

/// Answers operators and their probes.
pub(super) async fn answer(
    plane: &DataPlane,
    readiness: &Readiness,
    request: &mut Request<Incoming>,
) -> Response<Body> {
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::PUT, "/log-level") => return set_log_level(request).await,
        (method, path) if *method != Method::GET && *method != Method::HEAD => return not_allowed(path),
        (_, "/healthz") => (StatusCode::OK, TEXT, "alive\n".to_owned()),
        (_, "/readyz") => {
            let (state, reasons) = readiness.state();
            let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, JSON, line(&json!({ "status": state, "reasons": reasons })))
        }
        (_, "/metrics") => {
            plane.metrics.fill(fill(plane));
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
            if metrics::wants_open_metrics(accept) {
                (StatusCode::OK, metrics::OPEN_METRICS, plane.metrics.encode())
            } else {
                (StatusCode::OK, metrics::PROMETHEUS_TEXT, plane.metrics.encode_prometheus())
            }
        }
        (_, "/version") => (StatusCode::OK, JSON, line(&version(plane))),
        (_, "/log-level") => (StatusCode::OK, JSON, line(&json!({ "filter": logging::filter() }))),
        _ => (StatusCode::OK, JSON, format!("{:#}\n", state(plane, readiness))),
    };
    respond(status, content_type, body)
}

fn version(plane: &DataPlane) -> Value {
    json!({ "name": "tidegate", "version": env!("CARGO_PKG_VERSION"), "node": plane.registry.node().to_string() })
}

/// What this node is doing, in one look.
fn state(plane: &DataPlane, readiness: &Readiness) -> Value {
    let live = plane.live();
    let Fill { send_buffer_bytes, send_buffer_largest_bytes, backends } = fill(plane);
    let (status, reasons) = readiness.state();
    let apis = live.deployments.iter().map(|deployment| {
        let stages = deployment.stages().map(|stage| {
            let mut routes: Vec<&str> = stage.routes().map(|route| &*route.key).collect();
            routes.sort_unstable();
            (stage.name.to_string(), json!({ "routes": routes, "accessLog": stage.telemetry.access_log.is_some() }))
        });
        (deployment.api_id.to_string(), json!({ "stages": stages.collect::<serde_json::Map<_, _>>() }))
    });
    let backends = backends.into_iter().map(|BackendFill { backend, open, idle, waiting }| {
        (backend, json!({ "connections": open, "idle": idle, "callsWaiting": waiting }))
    });
    json!({
        "version": version(plane),
        "status": status,
        "reasons": reasons,
        "time": plane.clock.now().iso_8601(),
        "connections": { "live": plane.registry.live(), "all": plane.registry.all().len() },
        "sendBuffers": { "bytes": send_buffer_bytes, "largestBytes": send_buffer_largest_bytes },
        "backends": backends.collect::<serde_json::Map<_, _>>(),
        "apis": apis.collect::<serde_json::Map<_, _>>(),
        "explain": live.explain,
        "logFilter": logging::filter(),
    })
}

fn fill(plane: &DataPlane) -> Fill {
    let (send_buffer_bytes, send_buffer_largest_bytes) = plane.registry.buffered_bytes();
    Fill { send_buffer_bytes, send_buffer_largest_bytes, backends: plane.integrations.backends() }
}

/// Logs something else from now on. The body is a filter as in `RUST_LOG`.
async fn set_log_level(request: &mut Request<Incoming>) -> Response<Body> {
    let body = Limited::new(request.body_mut(), FILTER_MAX_BYTES).collect();
    let Ok(Ok(body)) = tokio::time::timeout(FILTER_TIMEOUT, body).await else {
        return refused("the body must be a filter of at most 4096 bytes");
    };
    let body = body.to_bytes();
    let Ok(filter) = std::str::from_utf8(&body) else { return refused("the body must be text") };
    match logging::set_filter(filter) {
        Ok(()) => {
            info!(filter = filter.trim(), "the log filter was changed");
            respond(StatusCode::OK, JSON, line(&json!({ "filter": logging::filter() })))
        }
        Err(error) => refused(&chain(&error).to_string()),
    }
}

fn refused(message: &str) -> Response<Body> {
    respond(StatusCode::BAD_REQUEST, JSON, line(&json!({ "message": message })))
}

fn not_allowed(path: &str) -> Response<Body> {
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new());
    let allowed = if path == "/log-level" { "GET, HEAD, PUT" } else { "GET, HEAD" };
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
