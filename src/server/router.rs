use std::sync::Arc;

use http::header::HOST;
use http::{Request, Response};
use hyper::body::Incoming;

use super::client_address::ClientAddress;
use super::connections_api::Caller;
use super::listener::{Endpoint, Peer, Session};
use super::{ConnectionsApi, TrustedProxy, admin, connections_api, upgrade};
use crate::data_plane::gateway_response::{self, Body};
use crate::data_plane::{DataPlane, RoutingError};
use crate::deployment::{Resolved, Target};
use crate::limits::quota::URL_MAX_BYTES;

/// Answers one request. An upgrade that is accepted leaves its session in `session` and answers 101.
pub(super) async fn route(
    plane: &Arc<DataPlane>,
    endpoint: &Endpoint,
    peer: Peer,
    session: &Session,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Endpoint::Internal { readiness, .. } = endpoint
        && let Some(response) = admin::answer(plane, readiness, &request)
    {
        return response;
    }
    match resolve(plane, &request) {
        Ok((host, Resolved { deployment, stage, target: Target::Client })) => match endpoint {
            Endpoint::Public { trusted_proxies, .. } => {
                let stage = upgrade::Stage { deployment, stage, host };
                upgrade::upgrade(plane, trusted_proxies, peer, session, stage, request)
                    .await
                    .unwrap_or_else(|response| *response)
            }
            Endpoint::Internal { .. } => gateway_response::routing(&RoutingError::Forbidden),
        },
        Ok((_, Resolved { deployment, stage, target: Target::Connection(id) })) => match endpoint.connections_api() {
            ConnectionsApi::Off => gateway_response::routing(&RoutingError::Forbidden),
            asked @ (ConnectionsApi::AwsIam | ConnectionsApi::None) => {
                let caller = (asked == ConnectionsApi::AwsIam).then(|| caller(endpoint, peer, &request));
                connections_api::answer(plane, &deployment, &stage, &id, caller, request).await
            }
        },
        Err(error) => gateway_response::routing(&error),
    }
}

/// What the request is for, and the Host that it was sent to.
fn resolve(plane: &DataPlane, request: &Request<Incoming>) -> Result<(String, Resolved), RoutingError> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    if target.len() > URL_MAX_BYTES {
        return Err(RoutingError::UrlTooLong { max: URL_MAX_BYTES });
    }
    let host = host(request)?;
    let resolved = plane.live().deployments.resolve(Some(&host), request.uri().path());
    Ok((host, resolved.ok_or(RoutingError::Forbidden)?))
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

/// Where a signed call comes from, as far as it can be believed.
fn caller(endpoint: &Endpoint, peer: Peer, request: &Request<Incoming>) -> Caller {
    let trusted: &[TrustedProxy] = match endpoint {
        Endpoint::Public { trusted_proxies, .. } => trusted_proxies,
        Endpoint::Internal { .. } => &[],
    };
    let address = ClientAddress::find(peer.remote, peer.local.port(), request.headers(), trusted);
    Caller { source_ip: address.source_ip, secure: address.secure }
}
