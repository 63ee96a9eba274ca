use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::{Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::client_address::{ClientAddress, sender};
use super::connections_api::Caller;
use super::entrance::{Peer, no_stage};
use super::head_watch::Head;
use super::listener::{Endpoint, Session};
use super::{ConnectionsApi, TrustedProxy, admin, audit, connections_api, operators, page, upgrade};
use crate::data_plane::gateway_response::{self, Body};
use crate::data_plane::management::CallRecord;
use crate::data_plane::{DataPlane, RoutingError};
use crate::deployment::{Resolved, Target};
use crate::limits::quota::{HEAD_MAX_BYTES, URL_MAX_BYTES};
use crate::telemetry::{Reason, Sender};

/// What is read of a body that nobody wants, in bytes, and for how long.
const DISCARD_MAX_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers one request. An upgrade that is accepted leaves its session in `session` and answers 101.
pub(super) async fn route(
    plane: &Arc<DataPlane>,
    endpoint: &Endpoint,
    peer: &Peer,
    head: Head,
    session: &Session,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let response = answer(plane, endpoint, peer, head, session, &mut request).await;
    if !request.body().is_end_stream() && !request.headers().contains_key(EXPECT) {
        discard(request.body_mut()).await;
    }
    response
}

/// Reads what an answer did without: hyper closes a connection whose input is unread, which resets it and can take the
/// answer away from a backend that is still sending.
async fn discard(body: &mut Incoming) {
    let _ = timeout(DISCARD_TIMEOUT, async {
        let mut left = DISCARD_MAX_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    })
    .await;
}

async fn answer(
    plane: &Arc<DataPlane>,
    endpoint: &Endpoint,
    peer: &Peer,
    head: Head,
    session: &Session,
    request: &mut Request<Incoming>,
) -> Response<Body> {
    if let Endpoint::Internal { readiness, .. } = endpoint {
        let (is_for_probes, is_for_people) =
            (admin::is_for(request.uri().path()), operators::is_for(request.uri().path()));
        if (is_for_probes || is_for_people)
            && let Err((error, reason)) = check_operator(endpoint, request)
        {
            audit_refused(&error, request, peer);
            return refuse(plane, &error, reason);
        }
        if is_for_probes {
            return admin::answer(plane, readiness, request).await;
        }
        if is_for_people {
            return operators::answer(plane, request.method(), request.uri()).await;
        }
    }
    if peer.is_over {
        plane.metrics.throttled(&no_stage(), "address");
        audit::turned_away("-", "-", peer.remote.ip(), Reason::Throttled);
        return refuse(plane, &RoutingError::TooManyConnections, Reason::Throttled);
    }
    match resolve(plane, endpoint, head, request) {
        Ok((host, Resolved { deployment, stage, target: Target::Client })) => match endpoint {
            Endpoint::Public { trusted_proxies, hosts, .. } => {
                let stage = upgrade::Stage { deployment, stage, host };
                upgrade::upgrade(plane, (trusted_proxies, hosts), peer, session, stage, request)
                    .await
                    .unwrap_or_else(|response| *response)
            }
            Endpoint::Internal { .. } => refuse(plane, &RoutingError::Forbidden, Reason::ClientsNotHere),
        },
        Ok((host, Resolved { deployment, stage, target: Target::Callback(resource) })) => {
            match endpoint.connections_api() {
                ConnectionsApi::Off => refuse(plane, &RoutingError::Forbidden, Reason::UnknownResource),
                asked @ (ConnectionsApi::AwsIam | ConnectionsApi::None) => {
                    let call = audit::Call::new(&deployment, &stage, &resource, request, peer);
                    if asked == ConnectionsApi::None
                        && let Err(error) = page::check(request)
                    {
                        let response = refuse(plane, &error, Reason::FromPage);
                        call.answered(&response);
                        return response;
                    }
                    let from = caller(endpoint, peer, request);
                    let sent = (host, request.method().clone(), request.headers());
                    let from_whom = (from.source_ip, sender_of_call(endpoint, peer, asked));
                    let record = CallRecord::begin(plane, (deployment, stage), resource, sent, from_whom);
                    let caller = (asked == ConnectionsApi::AwsIam).then_some(from);
                    let response = connections_api::answer(plane, record, caller, request).await;
                    call.answered(&response);
                    response
                }
            }
        }
        Err((error, reason)) => {
            audit_refused(&error, request, peer);
            refuse(plane, &error, reason)
        }
    }
}

/// Checks that a request for an operator's path is for a Host of this listener, and that no web page makes it change
/// anything. A probe of HTTP/1.0 may come without a Host; browsers always send one.
fn check_operator(endpoint: &Endpoint, request: &Request<Incoming>) -> Result<(), (RoutingError, Reason)> {
    if request.version() >= Version::HTTP_11 || request.headers().contains_key(HOST) {
        let host = host(request).map_err(|error| (error, Reason::BadHandshake))?;
        if !endpoint.allows(&host) {
            return Err((RoutingError::HostNotAllowed, Reason::HostNotAllowed));
        }
    }
    page::check(request).map_err(|error| (error, Reason::FromPage))
}

/// Writes down a request that somebody may have to account for.
fn audit_refused(error: &RoutingError, request: &Request<Incoming>, peer: &Peer) {
    match error {
        RoutingError::HostNotAllowed => audit::refused_host(request, peer),
        RoutingError::FromPage => audit::refused_page(request, peer),
        RoutingError::Forbidden
        | RoutingError::OriginNotAllowed(_)
        | RoutingError::UrlTooLong { .. }
        | RoutingError::HeadTooLarge { .. }
        | RoutingError::BadRequest(_)
        | RoutingError::UpgradeRequired
        | RoutingError::Draining
        | RoutingError::TooManyConnections => {}
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
fn resolve(
    plane: &DataPlane,
    endpoint: &Endpoint,
    head: Head,
    request: &Request<Incoming>,
) -> Result<(String, Resolved), (RoutingError, Reason)> {
    if head.has_length && request.headers().contains_key(TRANSFER_ENCODING) {
        let error = RoutingError::BadRequest("a request has Content-Length or Transfer-Encoding, not both");
        return Err((error, Reason::BadHandshake));
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    if target.len() > URL_MAX_BYTES {
        return Err((RoutingError::UrlTooLong { max: URL_MAX_BYTES }, Reason::HeadTooLarge));
    }
    // hyper has the same bound, but looks only after a read, which may bring as much again.
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len());
    if target.len() + fields.sum::<usize>() > HEAD_MAX_BYTES {
        return Err((RoutingError::HeadTooLarge { max: HEAD_MAX_BYTES }, Reason::HeadTooLarge));
    }
    let host = host(request).map_err(|error| (error, Reason::BadHandshake))?;
    if !endpoint.allows(&host) {
        return Err((RoutingError::HostNotAllowed, Reason::HostNotAllowed));
    }
    let (live, path) = (plane.live(), request.uri().path());
    match live.deployments.resolve(Some(&host), path) {
        Some(resolved) => Ok((host, resolved)),
        None => Err((RoutingError::Forbidden, live.deployments.unresolved(Some(&host), path))),
    }
}

/// The one Host of a request. Absolute targets are for proxies, which this is not: whoever sends one may mean to reach
/// another host than the one that was checked on the way.
fn host(request: &Request<Incoming>) -> Result<String, RoutingError> {
    if request.uri().authority().is_some() {
        return Err(RoutingError::BadRequest("the request target must be a path, not a whole URL"));
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

/// Finds how far the sender of a call is trusted with the trace that came along.
fn sender_of_call(endpoint: &Endpoint, peer: &Peer, asked: ConnectionsApi) -> Sender {
    match endpoint {
        Endpoint::Internal { .. } => Sender::Trusted,
        Endpoint::Public { trusted_proxies, .. } => match sender(peer, trusted_proxies) {
            Sender::Stranger if asked == ConnectionsApi::AwsIam => Sender::Unproven,
            sender => sender,
        },
    }
}

/// Where a signed call comes from, as far as it can be believed.
fn caller(endpoint: &Endpoint, peer: &Peer, request: &Request<Incoming>) -> Caller {
    let trusted: &[TrustedProxy] = match endpoint {
        Endpoint::Public { trusted_proxies, .. } => trusted_proxies,
        Endpoint::Internal { .. } => &[],
    };
    let address = ClientAddress::find(peer, request.headers(), trusted);
    Caller { source_ip: address.source_ip, secure: address.secure }
}
