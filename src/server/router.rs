use std::sync::Arc;

use http::header::HOST;
use http::{Request, Response};
use hyper::body::Incoming;

use super::listener::{Endpoint, Peer, Session};
use super::{ConnectionsApi, admin, connections_api, upgrade};
use crate::data_plane::gateway_response::{self, Body};
use crate::data_plane::management::ConnectionsCall;
use crate::data_plane::{ConnectionsApiError, DataPlane, RoutingError};
use crate::deployment::{Resolved, Target};
use crate::limits::quota::URL_MAX_BYTES;
use crate::telemetry::Reason;

/// Answers one request. An upgrade that is accepted leaves its session in `session` and answers 101.
pub(super) async fn route(
    plane: &Arc<DataPlane>,
    endpoint: &Endpoint,
    peer: Peer,
    session: &Session,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Endpoint::Internal { readiness, .. } = endpoint
        && admin::is_for(request.uri().path())
    {
        return admin::answer(plane, readiness, request).await;
    }
    match resolve(plane, &request) {
        Ok((host, Resolved { deployment, stage, target: Target::Client })) => match endpoint {
            Endpoint::Public { trusted_proxies, .. } => {
                let stage = upgrade::Stage { deployment, stage, host };
                upgrade::upgrade(plane, trusted_proxies, peer, session, stage, request)
                    .await
                    .unwrap_or_else(|response| *response)
            }
            Endpoint::Internal { .. } => refuse(plane, &RoutingError::Forbidden, Reason::ClientsNotHere),
        },
        Ok((host, Resolved { deployment, stage, target: Target::Connection(id) })) => {
            match endpoint.connections_api() {
                ConnectionsApi::Off => refuse(plane, &RoutingError::Forbidden, Reason::UnknownResource),
                access => {
                    let from = (host, request.method().clone(), request.headers());
                    let call = ConnectionsCall::begin(plane, (deployment, stage), id, from, peer.remote.ip());
                    match access {
                        ConnectionsApi::AwsIam => call.end(plane, Err(unsigned(&request))),
                        ConnectionsApi::None | ConnectionsApi::Off => {
                            connections_api::answer(plane, call, request).await
                        }
                    }
                }
            }
        }
        Err((error, reason)) => refuse(plane, &error, reason),
    }
}

/// Answers a request that leads nowhere. What is behind AWS's 403 goes to the log and the metrics.
pub(super) fn refuse(plane: &DataPlane, error: &RoutingError, forbidden: Reason) -> Response<Body> {
    let reason = error.reason(forbidden);
    plane.telemetry.refused(&plane.metrics, reason);
    let mut response = gateway_response::routing(error);
    if plane.live().explain {
        gateway_response::explain(&mut response, reason);
    }
    response
}

/// What the request is for, and the Host that it was sent to.
fn resolve(plane: &DataPlane, request: &Request<Incoming>) -> Result<(String, Resolved), (RoutingError, Reason)> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    if target.len() > URL_MAX_BYTES {
        return Err((RoutingError::UrlTooLong { max: URL_MAX_BYTES }, Reason::UrlTooLong));
    }
    let host = host(request).map_err(|error| (error, Reason::BadHandshake))?;
    let (live, path) = (plane.live(), request.uri().path());
    match live.deployments.resolve(Some(&host), path) {
        Some(resolved) => Ok((host, resolved)),
        None => Err((RoutingError::Forbidden, live.deployments.unresolved(Some(&host), path))),
    }
}

/// The one Host of a request; of an absolute target it is the target's (RFC 9112, section 3.2.2).
fn host(request: &Request<Incoming>) -> Result<String, RoutingError> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.as_str().to_owned());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().filter(|host| host.parse::<http::uri::Authority>().is_ok()),
        (_, Some(_)) | (None, None) => None,
    };
    // A user name in a Host would end up in callback URLs.
    let host = host.filter(|host| !host.contains('@'));
    host.map(str::to_owned).ok_or(RoutingError::BadRequest("the request needs one valid Host header"))
}

/// No key may sign yet: every signature is one of an unknown key.
fn unsigned(request: &Request<Incoming>) -> ConnectionsApiError {
    let in_query = request.uri().query().is_some_and(|query| query.contains("X-Amz-Signature="));
    if in_query || request.headers().contains_key(http::header::AUTHORIZATION) {
        ConnectionsApiError::UnknownKey
    } else {
        ConnectionsApiError::Unsigned
    }
}
