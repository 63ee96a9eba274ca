//! What an operator may have to account for: every DELETE, and every call that was refused. One line each, with the
//! target `audit`, so that it can be kept apart from the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HOST;
use http::{Method, Request, Response, StatusCode};
use tracing::info;

use super::entrance::Peer;
use crate::deployment::{Deployment, Resource, Stage};
use crate::id::ConnectionId;

/// A call of `@connections` that may be worth a line.
pub(super) struct Call {
    api_id: Arc<str>,
    stage: Arc<str>,
    connection_id: String,
    /// Below the stage, with names in place of values.
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
        let id = resource.connection().and_then(|id| ConnectionId::parse(id).ok());
        Call {
            path: resource.path(),
            api_id: Arc::clone(&deployment.api_id),
            stage: Arc::clone(&stage.name),
            // What is no connection id is not printed: who mistakes a path may have put a secret there.
            connection_id: id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            method: request.method().clone(),
            peer: peer.remote,
        }
    }

    /// Writes the line, if the answer makes it worth one: posts and lookups that are answered are the everyday.
    pub(super) fn answered<B>(self, response: &Response<B>) {
        let call = self;
        let status = response.status();
        let is_refused = matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST | StatusCode::TOO_MANY_REQUESTS
        );
        if call.method == Method::DELETE || is_refused {
            info!(
                target: "audit",
                method = %call.method, status = status.as_u16(), path = call.path,
                connection_id = call.connection_id, api_id = &*call.api_id, stage = &*call.stage, remote = %call.peer, "@connections call"
            );
        }
    }
}

/// A client was refused before its backend was asked.
pub(super) fn refused_connect(api_id: &str, stage: &str, peer: &Peer, why: &str) {
    info!(target: "audit", api_id, stage, remote = %peer.remote, why, "client refused");
}

/// A request named a Host that the listener does not answer for.
pub(super) fn refused_host<B>(request: &Request<B>, peer: &Peer) {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    info!(target: "audit", host, remote = %peer.remote, "Host refused");
}
