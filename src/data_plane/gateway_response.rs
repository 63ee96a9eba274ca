//! What an error looks like to the client or backend that it concerns: HTTP status and body, or error frame.
//!
//! Sources: AWS, "Gateway response types for API Gateway"; recorded answers of WebSocket APIs.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::{ConnectError, ConnectionsApiError, MessageError, Refusal, RoutingError};
use crate::http_client::CallError;
use crate::id::{ConnectionId, EventId};
use crate::integration::{Answer, IntegrationError, is_hop_by_hop};
use crate::session::Frame;
use crate::telemetry::Reason;

/// The body of every answer of the gateway: whole, in memory.
pub type Body = Full<Bytes>;

const JSON_UTF8: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const X_AMZN_ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const X_TIDEGATE_REASON: HeaderName = HeaderName::from_static("x-tidegate-reason");
const X_AMZ_APIGW_ID: HeaderName = HeaderName::from_static("x-amz-apigw-id");

const INTERNAL_SERVER_ERROR: &str = "Internal server error";
const ENDPOINT_TIMED_OUT: &str = "Endpoint request timed out";
const TOO_MANY_REQUESTS: &str = "Too Many Requests";

/// The answer to a request that leads nowhere.
pub fn routing(error: &RoutingError) -> Response<Body> {
    match error {
        RoutingError::Forbidden => typed(StatusCode::FORBIDDEN, "ForbiddenException", "Forbidden"),
        RoutingError::UrlTooLong { .. } => typed(StatusCode::URI_TOO_LONG, "BadRequestException", &error.to_string()),
        RoutingError::HeadTooLarge { .. } => {
            typed(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "BadRequestException", &error.to_string())
        }
        RoutingError::BadRequest(message) => typed(StatusCode::BAD_REQUEST, "BadRequestException", message),
        RoutingError::UpgradeRequired => {
            let mut response = typed(StatusCode::UPGRADE_REQUIRED, "BadRequestException", &error.to_string());
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        }
        RoutingError::Draining => {
            retry_soon(typed(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", "Service Unavailable"))
        }
    }
}

/// The answer to a client that was not admitted.
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    let (status, message) = match refused(&refusal.error) {
        Refused::Gateway(status, message) => (status, message),
        Refused::Backend(answer) => return backends_own(answer),
    };
    let body = three_keys(message, refusal.connection_id, refusal.request_id);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON_UTF8);
    if let Ok(request_id) = HeaderValue::from_str(refusal.request_id.as_str()) {
        response.headers_mut().insert(X_AMZ_APIGW_ID, request_id);
    }
    match &refusal.error {
        ConnectError::Throttled { .. } | ConnectError::Full | ConnectError::Unavailable => retry_soon(response),
        ConnectError::MissingParameter(_) | ConnectError::Refused(_) | ConnectError::Integration(_) => response,
    }
}

/// Whose word it is that a client is not admitted.
enum Refused<'a> {
    Gateway(StatusCode, &'static str),
    Backend(&'a Answer),
}

fn refused(error: &ConnectError) -> Refused<'_> {
    match error {
        ConnectError::MissingParameter(_) => {
            Refused::Gateway(StatusCode::BAD_REQUEST, "Missing required request parameters")
        }
        ConnectError::Throttled { .. } => Refused::Gateway(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS),
        ConnectError::Full | ConnectError::Unavailable => {
            Refused::Gateway(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
        }
        ConnectError::Refused(answer) => Refused::Backend(answer),
        ConnectError::Integration(error) => match error {
            IntegrationError::Call(CallError::TimedOut { .. }) => {
                Refused::Gateway(StatusCode::GATEWAY_TIMEOUT, ENDPOINT_TIMED_OUT)
            }
            IntegrationError::Refused(answer) if answer.status.is_client_error() => Refused::Backend(answer),
            IntegrationError::Call(_)
            | IntegrationError::Redirect(_)
            | IntegrationError::Refused(_)
            | IntegrationError::Function
            | IntegrationError::Unreadable(_) => Refused::Gateway(StatusCode::BAD_GATEWAY, INTERNAL_SERVER_ERROR),
        },
    }
}

/// The status that a client that was not admitted gets, and the gateway's words if they are not the backend's own.
pub(super) fn refusal_status(error: &ConnectError) -> (StatusCode, Option<&'static str>) {
    match refused(error) {
        Refused::Gateway(status, message) => (status, Some(message)),
        Refused::Backend(answer) => (answer.status, None),
    }
}

/// What a message that failed would have as an HTTP status, and what its client is told.
pub(super) fn failure_status(error: &MessageError) -> (StatusCode, &'static str) {
    match error {
        MessageError::NoRoute => (StatusCode::FORBIDDEN, "Forbidden"),
        MessageError::Throttled { .. } => (StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS),
        MessageError::Integration(IntegrationError::Call(CallError::TimedOut { .. })) => {
            (StatusCode::GATEWAY_TIMEOUT, ENDPOINT_TIMED_OUT)
        }
        MessageError::Integration(_) => (StatusCode::BAD_GATEWAY, INTERNAL_SERVER_ERROR),
        MessageError::ReplyTooLarge { .. } => (StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_SERVER_ERROR),
    }
}

/// The frame that a client gets for a message that failed. Spelled as AWS does, blanks included. With a `reason` it
/// says more than AWS does.
pub fn error_frame(
    error: &MessageError,
    connection_id: ConnectionId,
    request_id: EventId,
    reason: Option<Reason>,
) -> Frame {
    let mut text = three_keys(failure_status(error).1, connection_id, request_id);
    if let Some(reason) = reason {
        text.truncate(text.len() - 1);
        text.push_str(&format!(r#", "reason":"{}"}}"#, reason.code()));
    }
    Frame::text(text)
}

/// Tells a refused client why, for developers.
pub fn explain(response: &mut Response<Body>, reason: Reason) {
    response.headers_mut().insert(X_TIDEGATE_REASON, HeaderValue::from_static(reason.code()));
}

/// The answer to a failed call of `@connections`.
pub fn connections_api(error: &ConnectionsApiError) -> Response<Body> {
    match error {
        ConnectionsApiError::Unsigned | ConnectionsApiError::UnknownMethod => {
            typed(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", "Missing Authentication Token")
        }
        ConnectionsApiError::UnknownKey => typed(
            StatusCode::FORBIDDEN,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        ConnectionsApiError::InvalidConnectionId(id) => {
            typed(StatusCode::BAD_REQUEST, "BadRequestException", &format!("Invalid connectionId: {id}"))
        }
        ConnectionsApiError::BadRequest(message) => typed(StatusCode::BAD_REQUEST, "BadRequestException", message),
        ConnectionsApiError::Gone => {
            let mut response = empty(StatusCode::GONE);
            response.headers_mut().insert(X_AMZN_ERROR_TYPE, HeaderValue::from_static("GoneException"));
            response
        }
        // AWS sends neither a type nor a body here, and SDKs show what they make of that.
        ConnectionsApiError::TooLarge => empty(StatusCode::PAYLOAD_TOO_LARGE),
        ConnectionsApiError::BufferFull => {
            retry_soon(typed(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", "Limit Exceeded"))
        }
        ConnectionsApiError::OwnerUnreachable => {
            retry_soon(typed(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", &error.to_string()))
        }
        // A client error, which SDKs do not repeat.
        ConnectionsApiError::DeliveryUnknown => {
            typed(StatusCode::FAILED_DEPENDENCY, "DeliveryUnknownException", &error.to_string())
        }
        ConnectionsApiError::BodyTimeout | ConnectionsApiError::BodyLost => {
            typed(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", &error.to_string())
        }
    }
}

/// An answer with AWS's error type and a message.
fn typed(status: StatusCode, error_type: &'static str, message: &str) -> Response<Body> {
    let mut response = Response::new(Full::from(json!({ "message": message }).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(X_AMZN_ERROR_TYPE, HeaderValue::from_static(error_type));
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// What the backend itself said to a client that wants to connect.
fn backends_own(answer: &Answer) -> Response<Body> {
    let mut response = Response::new(Full::new(answer.body.clone()));
    *response.status_mut() = answer.status;
    let kept = |name: &HeaderName| {
        !is_hop_by_hop(name)
            && !matches!(name.as_str(), "content-length" | "date" | "sec-websocket-accept")
            && !name.as_str().starts_with("x-tidegate-")
    };
    for (name, value) in answer.headers.iter().filter(|(name, _)| kept(name)) {
        response.headers_mut().append(name.clone(), value.clone());
    }
    response
}

fn retry_soon(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn three_keys(message: &str, connection_id: ConnectionId, request_id: EventId) -> String {
    format!(r#"{{"message": "{message}", "connectionId":"{connection_id}", "requestId":"{request_id}"}}"#)
}
