use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::watch;

use crate::data_plane::DataPlane;
use crate::data_plane::gateway_response::Body;
use crate::registry::{Registry, RegistryState, WhenUnavailable};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Whether this node may be sent new connections.
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
    /// The listeners are up, and the node is registered where it has to be.
    pub fn ready(&self) {
        // A node that is told to go down while it starts never gets ready.
        self.0.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Ready;
            }
            starting
        });
    }

    /// The node goes down.
    pub fn draining(&self) {
        self.0.send_replace(Phase::Draining);
    }

    /// Resolves when the node is ready, or goes down.
    pub async fn wait(&self) {
        // The sender is part of self.
        let _ = self.0.subscribe().wait_for(|phase| *phase != Phase::Starting).await;
    }

    fn answer(&self, registry: &Registry) -> (StatusCode, String) {
        let refuses = registry.mirror().is_some_and(|mirror| mirror.when_unavailable() == WhenUnavailable::Refuse);
        let phase = *self.0.borrow();
        match (phase, registry.state()) {
            (Phase::Draining, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
            (_, RegistryState::Starting { why }) => (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {why}\n")),
            (Phase::Starting, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
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
