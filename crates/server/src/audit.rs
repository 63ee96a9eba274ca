//! The audit log: every DELETE, every refused call and every refused client. Its lines have the target `audit`, so that
//! they can be kept apart from the rest. Every DELETE that was authorized has its line. Strangers can cause refusals,
//! so lines about refusals are bounded by the log's budget for each kind of line.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use tracing::info;

use super::entrance::Peer;
use tidegate_gateway::deployment::{Deployment, OriginError, Resource, Stage};
use tidegate_telemetry::{Reason, UNBUDGETED};

/// Longest Host that is logged, in bytes; no valid name is longer.
const HOST_MAX_BYTES: usize = 255;

/// Most bytes of an Origin that are logged.
const ORIGIN_SHOWN_BYTES: usize = 255;

/// A call of `@connections` that may get a line.
pub(super) struct Call {
    api_id: Arc<str>,
    stage: Arc<str>,
    connection_id: String,
    /// The path below the stage, with names in place of values.
    path: &'static str,
    method: Method,
    peer: SocketAddr,
}

impl Call {
    pub(super) fn new<B>(
        deployment: &Deployment,
        stage: &Stage,
        resource: &Resource,
        request: &Request<B>,
        peer: &Peer,
    ) -> Self {
        let id = resource.connection();
        Call {
            path: resource.path(),
            api_id: Arc::clone(&deployment.api_id),
            stage: Arc::clone(&stage.name),
            // Text that is not a connection id is not logged: a caller with a wrong path may have put a secret there.
            connection_id: id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            method: request.method().clone(),
            peer: peer.remote,
        }
    }

    /// Returns the method as it is logged. A method is free text, so all but the usual ones become `OTHER`.
    fn method(&self) -> &str {
        match self.method {
            Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD | Method::OPTIONS => {
                self.method.as_str()
            }
            _ => "OTHER",
        }
    }

    /// Writes the line if the call was refused or is a DELETE. Posts and lookups that succeed are not logged.
    pub(super) fn answered<B>(self, response: &Response<B>) {
        let call = self;
        let status = response.status();
        let is_refused = matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST | StatusCode::TOO_MANY_REQUESTS
        );
        macro_rules! line {
            ($($name:tt)*) => {
                info!(
                    $($name)* target: "audit",
                    method = call.method(), status = status.as_u16(), path = call.path,
                    connection_id = call.connection_id, api_id = &*call.api_id, stage = &*call.stage,
                    remote = %call.peer, "@connections call"
                )
            };
        }
        if is_refused {
            line!();
        } else if call.method == Method::DELETE {
            line!(name: UNBUDGETED,);
        }
    }
}

/// Logs that a page was refused because its origin is not allowed.
pub(super) fn refused_origin(api_id: &str, stage: &str, remote: IpAddr, why: &OriginError) {
    info!(target: "audit", api_id, stage, %remote, %why, "client refused");
}

/// Logs that a client was throttled, or could not prove its identity.
pub(super) fn turned_away(api_id: &str, stage: &str, remote: IpAddr, reason: Reason) {
    info!(target: "audit", api_id, stage, %remote, reason = reason.code(), why = reason.meaning(), "client turned away");
}

/// Logs that a web page made a browser call an operator's path.
pub(super) fn refused_page<B>(request: &Request<B>, peer: &Peer) {
    let origin = request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let origin = origin.get(..ORIGIN_SHOWN_BYTES).unwrap_or(origin);
    info!(target: "audit", origin, path = request.uri().path(), remote = %peer.remote, "web page refused");
}

/// Logs a request with a Host for which the listener does not answer.
pub(super) fn refused_host<B>(request: &Request<B>, peer: &Peer) {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // The text is visible ASCII, so it can be cut at any byte.
    let host = &host[..host.len().min(HOST_MAX_BYTES)];
    info!(target: "audit", host, remote = %peer.remote, "Host refused");
}
