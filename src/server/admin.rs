use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::data_plane::DataPlane;
use crate::data_plane::gateway_response::Body;
use crate::registry::{Registry, RegistryState, WhenUnavailable};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Whether this node may be sent new connections.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// The listeners are up, and the node is registered where it has to be.
    pub fn ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    /// The node goes down.
    pub fn draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    fn answer(&self, registry: &Registry) -> (StatusCode, String) {
        let refuses = registry.mirror().is_some_and(|mirror| mirror.when_unavailable() == WhenUnavailable::Refuse);
        match (self.0.load(Ordering::Acquire), registry.state()) {
            (DRAINING, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
            (_, RegistryState::Starting { why }) => (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {why}\n")),
            (STARTING, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
            (_, RegistryState::Detached { why } | RegistryState::Degraded { why }) if refuses => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("degraded: {why}\n"))
            }
            (_, state) => match state.degraded() {
                Some(why) => (StatusCode::OK, format!("degraded: {why}\n")),
                None => (StatusCode::OK, "ready\n".to_owned()),
            },
        }
    }
}

/// Answers operators and their probes; `None` if the path is not one of theirs.
pub(super) fn answer<B>(plane: &DataPlane, readiness: &Readiness, request: &Request<B>) -> Option<Response<Body>> {
    let (status, content_type, body) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, TEXT, Bytes::from_static(b"alive\n")),
        "/readyz" => {
            let (status, text) = readiness.answer(&plane.registry);
            (status, TEXT, Bytes::from(text))
        }
        "/metrics" => (StatusCode::OK, OPEN_METRICS, Bytes::from(plane.metrics.encode())),
        _ => return None,
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, body) = if is_read { (status, body) } else { (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Some(response)
}
