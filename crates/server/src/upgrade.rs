use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::callback_host::CallbackHost;
use super::client_address::{ClientAddress, sender};
use super::entrance::Peer;
use super::http_connection::Session;
use super::pace::KeepAlive;
use super::router::{Answered, FoundStage, refuse};
use super::{AllowedHosts, TrustedProxy, audit};
use tidegate_core::received_base64;
use tidegate_gateway::data_plane::gateway_response;
use tidegate_gateway::data_plane::response::Body;
use tidegate_gateway::data_plane::websocket::{UpgradeRequest, connect};
use tidegate_gateway::data_plane::{ConnectError, DataPlane, Refusal, RoutingError};
use tidegate_integration::{Handshake, remove_hop_by_hop};
use tidegate_telemetry::Reason;

const WEBSOCKET_VERSION: &str = "13";
const KEY_BYTES: usize = 16;

/// Turns a WebSocket handshake into an admitted session, or into the answer that refuses it. A client that reached its
/// backend is no stranger, see [`KeepAlive`].
pub(super) async fn upgrade(
    plane: &Arc<DataPlane>,
    (trusted_proxies, hosts): (&[TrustedProxy], &AllowedHosts),
    peer: &Peer,
    session: &Session,
    stage: FoundStage,
    request: &mut Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Box<Answered>> {
    let stranger = |error: &RoutingError, reason| Box::new((refuse(plane, error, reason), KeepAlive::Stranger));
    let accept = check(request).map_err(|error| stranger(&error, Reason::NoUpgrade))?;
    stage.deployment.allow_origins.check(request.headers()).map_err(|error| {
        audit::refused_origin(&stage.deployment.api_id, &stage.stage.name, peer.remote.ip(), &error);
        stranger(&RoutingError::OriginNotAllowed(error), Reason::OriginNotAllowed)
    })?;
    if plane.lifecycle.draining().is_cancelled() {
        return Err(stranger(&RoutingError::Draining, Reason::Draining));
    }
    let (api_id, stage_name) = (Arc::clone(&stage.deployment.api_id), Arc::clone(&stage.stage.name));
    let explain = stage.live.settings.explain;
    let upgrade = upgrade_request((trusted_proxies, hosts), peer, stage, request);
    let source_ip = upgrade.source_ip;
    // This runs in its own task: hyper drops this future when the client leaves, but the backend's answer must still be
    // handled.
    let connecting = plane.lifecycle.spawn(connect(Arc::clone(plane), upgrade));
    match connecting.await {
        Ok(Ok(mut admitted)) => {
            let subprotocol = admitted.take_subprotocol();
            session.put(admitted);
            Ok(switching_protocols(accept, subprotocol))
        }
        Ok(Err(refusal)) => {
            // All other errors are the backend's decision, a mistake of the client, or a failure, and not a refusal by
            // the gateway.
            if let ConnectError::Throttled { .. } | ConnectError::Denied(_) = refusal.error {
                audit::turned_away(&api_id, &stage_name, source_ip, refusal.error.reason());
            }
            Err(Box::new(answer_refused(&refusal, explain)))
        }
        // The task panicked or the process aborts.
        Err(_) => Err(stranger(&RoutingError::Draining, Reason::Draining)),
    }
}

/// Builds the upgrade request of a client. Takes the headers out of `request`.
fn upgrade_request(
    (trusted_proxies, hosts): (&[TrustedProxy], &AllowedHosts),
    peer: &Peer,
    found: FoundStage,
    request: &mut Request<hyper::body::Incoming>,
) -> UpgradeRequest {
    let FoundStage { live, deployment, stage, host } = found;
    // A signature covers the request as it was received.
    let mut received = Request::new(());
    *received.method_mut() = request.method().clone();
    *received.uri_mut() = request.uri().clone();
    *received.headers_mut() = std::mem::take(request.headers_mut());
    // This must come before headers are removed: `Connection` could name a header that a proxy wrote.
    let address = ClientAddress::find(peer, received.headers(), trusted_proxies);
    let callback = CallbackHost::find(hosts, &live.deployments, peer, &address, &host);
    let headers = seen_behind(received.headers().clone(), &host, &address);
    let user_agent = headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
    UpgradeRequest {
        live,
        deployment,
        stage,
        handshake: Handshake::new(headers, request.uri().query().map(str::to_owned)),
        host: callback.host,
        callback_secure: callback.secure,
        secure: address.secure,
        source_ip: address.source_ip,
        port: address.port,
        forwarded_for: address.forwarded_for,
        user_agent,
        received,
        client_cert: peer.client_cert.clone(),
        is_counted: peer.is_counted,
        sender: sender(peer, trusted_proxies),
    }
}

/// Returns the answer to a client that was not admitted, with the reason if `explain` is set.
fn answer_refused(refusal: &Refusal, explain: bool) -> Answered {
    let mut response = gateway_response::refusal(refusal);
    if explain {
        gateway_response::explain(&mut response, refusal.error.reason());
    }
    let keep_alive = match refusal.error {
        ConnectError::Refused(_) | ConnectError::Integration(_) => KeepAlive::Known,
        ConnectError::MissingParameter(_)
        | ConnectError::Throttled { .. }
        | ConnectError::Denied(_)
        | ConnectError::Full
        | ConnectError::Backlog
        | ConnectError::Unavailable => KeepAlive::Stranger,
    };
    (response, keep_alive)
}

/// Checks the handshake (RFC 6455, section 4.2.1) and computes its accept key. A request that is not a handshake at all
/// gets AWS's 403.
fn check(request: &Request<hyper::body::Incoming>) -> Result<HeaderValue, RoutingError> {
    let headers = request.headers();
    let is_upgrade = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(headers, &CONNECTION, "upgrade")
        && lists(headers, &UPGRADE, "websocket");
    if !is_upgrade {
        return Err(RoutingError::Forbidden);
    }
    if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        return Err(RoutingError::BadRequest("there must be only one Authorization header"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != WEBSOCKET_VERSION) {
        return Err(RoutingError::UpgradeRequired);
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none());
    let key = key.filter(|key| received_base64::decode(key).is_ok_and(|key| key.len() == KEY_BYTES));
    let key = key.ok_or(RoutingError::BadRequest("Sec-WebSocket-Key must be 16 bytes in base64"))?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .map_err(|_| RoutingError::BadRequest("Sec-WebSocket-Key must be 16 bytes in base64"))
}

/// Returns true if the comma-separated header `name` contains `token`.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Returns the client's headers from which authorizers and integrations choose: without hop-by-hop headers, and with
/// the host and the client address that the gateway found.
fn seen_behind(mut headers: HeaderMap, host: &str, address: &ClientAddress) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    // A list may come in several headers (RFC 6455, section 11.3.4); backends read one text.
    let offers: Vec<&[u8]> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().map(HeaderValue::as_bytes).collect();
    if let [_, _, ..] = offers.as_slice()
        && let Ok(list) = HeaderValue::from_bytes(&offers.join(&b", "[..]))
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, list);
    }
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    address.write_to(&mut headers);
    headers
}

fn switching_protocols(accept: HeaderValue, subprotocol: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}
