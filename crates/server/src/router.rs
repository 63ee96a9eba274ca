use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::client_address::{ClientAddress, is_trusted, sender};
use super::entrance::{Peer, no_stage};
use super::http_connection::Session;
use super::listener::Endpoint;
use super::pace::KeepAlive;
use super::target::take_host;
use super::{ConnectionsApi, TrustedProxy, audit, connections_api, page, upgrade};
use tidegate_core::limits::ThrottleLevel;
use tidegate_core::limits::quota::{HEAD_MAX_BYTES, HOST_MAX_BYTES, URL_MAX_BYTES};
use tidegate_gateway::data_plane::gateway_response;
use tidegate_gateway::data_plane::management::{CallRecord, CallerRule};
use tidegate_gateway::data_plane::response::Body;
use tidegate_gateway::data_plane::{DataPlane, Live, RoutingError};
use tidegate_gateway::deployment::{Deployment, Resolved, Resource, Stage, Target};
use tidegate_operator_api::{Readiness, admin, operators};
use tidegate_telemetry::{Reason, Sender};

/// Bounds for reading a body that the answer did not need: bytes, and time.
const DISCARD_MAX_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer, and the kind of caller, which decides how long the connection is kept after it.
pub(super) type Answered = (Response<Body>, KeepAlive);

/// Answers one request. An accepted upgrade leaves its session in `session` and answers 101. `is_whole` is false if the
/// head is ambiguous.
pub(super) async fn route(
    plane: &Arc<DataPlane>,
    endpoint: &Endpoint,
    peer: &Peer,
    is_whole: bool,
    session: &Session,
    mut request: Request<Incoming>,
) -> Answered {
    if !is_whole {
        return (ambiguous(plane, &request), KeepAlive::Stranger);
    }
    let (response, keep_alive) = answer(plane, endpoint, peer, session, &mut request).await;
    // A body that did not come in time has been waited for already.
    let is_late = response.status() == StatusCode::REQUEST_TIMEOUT;
    if !request.body().is_end_stream() && !is_late && !request.headers().contains_key(EXPECT) {
        discard(request.body_mut()).await;
    }
    let keep_alive = match endpoint {
        Endpoint::Public { trusted_proxies, .. } if !is_trusted(peer.remote.ip().to_canonical(), trusted_proxies) => {
            keep_alive
        }
        Endpoint::Public { .. } | Endpoint::Internal { .. } => KeepAlive::Known,
    };
    (response, keep_alive)
}

/// Refuses a request whose end is ambiguous, and closes the connection, because the bytes that follow may be part of
/// it.
fn ambiguous(plane: &DataPlane, request: &Request<Incoming>) -> Response<Body> {
    let why = if request.headers().contains_key(TRANSFER_ENCODING) {
        "a request must have Content-Length or Transfer-Encoding, not both, and `chunked` is the only transfer coding"
    } else {
        "a request must have only one Content-Length, and nothing before the request may be malformed"
    };
    let mut response = refuse(plane, &RoutingError::BadRequest(why), Reason::BadHandshake);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Reads the rest of a body that the answer did not need. hyper closes a connection with unread input, which resets it
/// and can lose the answer for a backend that is still sending.
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
    session: &Session,
    request: &mut Request<Incoming>,
) -> Answered {
    if let Endpoint::Internal { readiness, .. } = endpoint
        && let Some(answered) = answer_operator(plane, endpoint, readiness, peer, request).await
    {
        return answered;
    }
    if peer.is_over {
        plane.telemetry.metrics.throttled(&no_stage(), ThrottleLevel::Address);
        audit::turned_away("-", "-", peer.remote.ip(), Reason::Throttled);
        return stranger(refuse(plane, &RoutingError::TooManyConnections, Reason::Throttled));
    }
    // A client is admitted with the configuration in which its stage was found.
    match resolve(plane.live_owned(), endpoint, request) {
        Ok((stage, Target::Client)) => answer_client(plane, endpoint, peer, session, stage, request).await,
        Ok((stage, Target::Callback(resource))) => {
            answer_backend(plane, endpoint, peer, stage, resource, request).await
        }
        Err((error, reason)) => {
            audit_refused(&error, request, peer);
            stranger(refuse(plane, &error, reason))
        }
    }
}

fn stranger(response: Response<Body>) -> Answered {
    (response, KeepAlive::Stranger)
}

/// Answers a request for a path of operators or their probes. Returns `None` for all other paths.
async fn answer_operator(
    plane: &DataPlane,
    endpoint: &Endpoint,
    readiness: &Readiness,
    peer: &Peer,
    request: &mut Request<Incoming>,
) -> Option<Answered> {
    let (is_for_probes, is_for_people) = (admin::is_for(request.uri().path()), operators::is_for(request.uri().path()));
    if !is_for_probes && !is_for_people {
        return None;
    }
    if let Err((error, reason)) = check_operator(endpoint, request) {
        audit_refused(&error, request, peer);
        return Some(stranger(refuse(plane, &error, reason)));
    }
    let response = if is_for_probes {
        admin::answer(plane, readiness, request).await
    } else {
        operators::answer(plane, request.method(), request.uri()).await
    };
    Some((response, KeepAlive::Known))
}

/// Answers a client that wants to connect to `stage`.
async fn answer_client(
    plane: &Arc<DataPlane>,
    endpoint: &Endpoint,
    peer: &Peer,
    session: &Session,
    stage: FoundStage,
    request: &mut Request<Incoming>,
) -> Answered {
    match endpoint {
        Endpoint::Public { trusted_proxies, hosts, .. } => {
            match upgrade::upgrade(plane, (trusted_proxies, hosts), peer, session, stage, request).await {
                Ok(response) => (response, KeepAlive::Known),
                Err(refused) => *refused,
            }
        }
        Endpoint::Internal { .. } => stranger(refuse(plane, &RoutingError::Forbidden, Reason::ClientsNotHere)),
    }
}

/// Answers a backend that acts on `resource`, through `found`.
async fn answer_backend(
    plane: &DataPlane,
    endpoint: &Endpoint,
    peer: &Peer,
    found: FoundStage,
    resource: Resource,
    request: &mut Request<Incoming>,
) -> Answered {
    let rule = match (endpoint.connections_api(), endpoint) {
        (ConnectionsApi::Off, _) => {
            return stranger(refuse(plane, &RoutingError::Forbidden, Reason::UnknownResource));
        }
        (ConnectionsApi::AwsIam, _) => CallerRule::MustSign,
        (ConnectionsApi::None, Endpoint::Public { .. }) => CallerRule::Anybody,
        (ConnectionsApi::None, Endpoint::Internal { .. }) => CallerRule::Trusted,
    };
    let FoundStage { live, deployment, stage, host } = found;
    let call = audit::Call::new(&deployment, &stage, &resource, request, peer);
    if rule != CallerRule::MustSign
        && let Err(error) = page::check(request)
    {
        let response = refuse(plane, &error, Reason::FromPage);
        call.answered(&response);
        return stranger(response);
    }
    let from = caller(endpoint, peer, request);
    let sent = (host, request.method().clone(), request.headers());
    let from_whom = (from.source_ip, from.secure, sender_of_call(endpoint, peer, rule));
    let record = CallRecord::begin(plane, (live, deployment, stage), resource, sent, from_whom);
    let answered = connections_api::answer(plane, record, rule, request).await;
    call.answered(&answered.0);
    answered
}

/// Checks that a request for an operator's path is for a Host of this listener, and that no web page makes it change
/// anything. A probe of HTTP/1.0 may come without a Host; browsers always send one.
fn check_operator(endpoint: &Endpoint, request: &mut Request<Incoming>) -> Result<(), (RoutingError, Reason)> {
    if request.version() >= Version::HTTP_11 || request.headers().contains_key(HOST) {
        let host = host(request).map_err(|error| (error, Reason::BadHandshake))?;
        if !endpoint.allows(&host) {
            return Err((RoutingError::HostNotAllowed, Reason::HostNotAllowed));
        }
    }
    page::check(request).map_err(|error| (error, Reason::FromPage))
}

/// Logs a refused request in the audit log, if it belongs there.
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

/// Answers a request that was refused before it reached a stage. `forbidden` is the reason behind AWS's 403, which goes
/// to the log and the metrics.
pub(super) fn refuse(plane: &DataPlane, error: &RoutingError, forbidden: Reason) -> Response<Body> {
    let reason = error.reason(forbidden);
    plane.telemetry.refused(reason);
    let mut response = gateway_response::routing(error);
    if plane.live().settings.explain {
        gateway_response::explain(&mut response, reason);
    }
    response
}

/// The API and the stage that a request is for.
pub(super) struct FoundStage {
    /// The configuration in which the stage was found.
    pub(super) live: Arc<Live>,
    pub(super) deployment: Arc<Deployment>,
    pub(super) stage: Arc<Stage>,
    /// The Host that the request was sent to.
    pub(super) host: String,
}

/// Finds the stage and the target of a request.
fn resolve(
    live: Arc<Live>,
    endpoint: &Endpoint,
    request: &mut Request<Incoming>,
) -> Result<(FoundStage, Target), (RoutingError, Reason)> {
    let path = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let target = path + request.uri().authority().map_or(0, |authority| authority.as_str().len());
    if target > URL_MAX_BYTES {
        return Err((RoutingError::UrlTooLong { max: URL_MAX_BYTES }, Reason::HeadTooLarge));
    }
    // hyper has the same bound, but checks it only after a read, which may bring as many bytes again.
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len());
    if target + fields.sum::<usize>() > HEAD_MAX_BYTES {
        return Err((RoutingError::HeadTooLarge { max: HEAD_MAX_BYTES }, Reason::HeadTooLarge));
    }
    let host = host(request).map_err(|error| (error, Reason::BadHandshake))?;
    if !endpoint.allows(&host) {
        return Err((RoutingError::HostNotAllowed, Reason::HostNotAllowed));
    }
    let path = request.uri().path();
    match live.deployments.resolve(Some(&host), path) {
        Some(Resolved { deployment, stage, target }) => Ok((FoundStage { live, deployment, stage, host }, target)),
        None => Err((RoutingError::Forbidden, live.deployments.unresolved(Some(&host), path))),
    }
}

/// Returns the one host of a request. Afterwards the request names no other.
fn host(request: &mut Request<Incoming>) -> Result<String, RoutingError> {
    let (mut uri, mut headers) = (std::mem::take(request.uri_mut()), std::mem::take(request.headers_mut()));
    let host = take_host(&mut uri, &mut headers);
    (*request.uri_mut(), *request.headers_mut()) = (uri, headers);
    let host = host.map_err(RoutingError::BadRequest)?;
    if host.len() > HOST_MAX_BYTES {
        return Err(RoutingError::BadRequest("the Host is longer than 255 bytes"));
    }
    Ok(host)
}

/// Returns how far the sender of a call is trusted to continue a trace.
fn sender_of_call(endpoint: &Endpoint, peer: &Peer, rule: CallerRule) -> Sender {
    match endpoint {
        Endpoint::Internal { .. } => Sender::Trusted,
        Endpoint::Public { trusted_proxies, .. } => match sender(peer, trusted_proxies) {
            Sender::Stranger if rule == CallerRule::MustSign => Sender::Unproven,
            sender => sender,
        },
    }
}

/// Returns the origin of a call, as far as headers can be trusted.
fn caller(endpoint: &Endpoint, peer: &Peer, request: &Request<Incoming>) -> ClientAddress {
    let trusted: &[TrustedProxy] = match endpoint {
        Endpoint::Public { trusted_proxies, .. } => trusted_proxies,
        Endpoint::Internal { .. } => &[],
    };
    ClientAddress::find(peer, request.headers(), trusted)
}
