//! The responses that clients and backends get for errors: HTTP status and body, or error frame.
//!
//! Sources: AWS, "Gateway response types for API Gateway"; recorded answers of WebSocket APIs.

use std::borrow::Cow;

use http::header::{RETRY_AFTER, SEC_WEBSOCKET_VERSION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json as object;

use super::response::{Body, empty, json, respond};
use super::{ConnectError, ConnectionsApiError, MessageError, Refusal, RoutingError};
use tidegate_access::authorizer::{Denial, RequestAuthorizerError};
use tidegate_access::iam::{IamError, SignatureError};
use tidegate_access::usage::UsageExceeded;
use tidegate_connections::session::DataFrame;
use tidegate_core::clock::Timestamp;
use tidegate_core::id::{ConnectionId, EventId};
use tidegate_http::http_client::CallError;
use tidegate_integration::{Answer, IntegrationError, remove_hop_by_hop};
use tidegate_telemetry::Reason;

const JSON_UTF8: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
const X_AMZN_ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const X_TIDEGATE_REASON: HeaderName = HeaderName::from_static("x-tidegate-reason");
const X_AMZ_APIGW_ID: HeaderName = HeaderName::from_static("x-amz-apigw-id");

const INTERNAL_SERVER_ERROR: &str = "Internal server error";
const ENDPOINT_TIMED_OUT: &str = "Endpoint request timed out";
const UNAUTHORIZED: &str = "Unauthorized";
const LIMIT_EXCEEDED: &str = "Limit Exceeded";
const TOO_MANY_REQUESTS: &str = "Too Many Requests";

/// Returns the response to a request that the router refused.
pub fn routing(error: &RoutingError) -> Response<Body> {
    match error {
        RoutingError::Forbidden => typed(StatusCode::FORBIDDEN, "ForbiddenException", "Forbidden"),
        RoutingError::HostNotAllowed | RoutingError::FromPage => {
            typed(StatusCode::FORBIDDEN, "ForbiddenException", &error.to_string())
        }
        RoutingError::OriginNotAllowed(why) => typed(StatusCode::FORBIDDEN, "ForbiddenException", &why.to_string()),
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
        RoutingError::TooManyConnections => {
            retry_soon(typed(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", TOO_MANY_REQUESTS))
        }
    }
}

/// Returns the response to a client that was not admitted.
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    let (status, message) = match refused_by(&refusal.error) {
        Refused::Gateway(status, message) => (status, message),
        Refused::Backend(answer) => return answer_of_backend(answer),
    };
    let response = refused(status, &message, refusal);
    match &refusal.error {
        ConnectError::Throttled { .. }
        | ConnectError::Denied(Denial::UsageExceeded(_))
        | ConnectError::Full
        | ConnectError::Backlog
        | ConnectError::Unavailable
        | ConnectError::Integration(IntegrationError::Call(CallError::Overloaded)) => retry_soon(response),
        ConnectError::MissingParameter(_)
        | ConnectError::Denied(_)
        | ConnectError::Refused(_)
        | ConnectError::Integration(_) => response,
    }
}

/// Returns the status and the message for a client that was refused access.
fn denied(denial: &Denial) -> (StatusCode, Cow<'static, str>) {
    let (status, message) = match denial {
        Denial::MissingIdentitySource(_)
        | Denial::RepeatedIdentitySource(_)
        | Denial::Token(_)
        | Denial::Unauthorized => (StatusCode::UNAUTHORIZED, UNAUTHORIZED),
        Denial::MissingScope | Denial::ApiKey => (StatusCode::FORBIDDEN, "Forbidden"),
        Denial::ExplicitDeny => (
            StatusCode::FORBIDDEN,
            "User is not authorized to access this resource with an explicit deny in an identity-based policy",
        ),
        Denial::NoAllow { .. } => (
            StatusCode::FORBIDDEN,
            "User is not authorized to access this resource because no identity-based policy allows the \
             execute-api:Invoke action",
        ),
        // AWS sends no message if the authorizer's answer cannot be used.
        Denial::Authorizer(RequestAuthorizerError::Answer(_)) => (StatusCode::INTERNAL_SERVER_ERROR, ""),
        Denial::Authorizer(RequestAuthorizerError::Call(_) | RequestAuthorizerError::Status(_)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_SERVER_ERROR)
        }
        Denial::UsageExceeded(exceeded) => (StatusCode::TOO_MANY_REQUESTS, usage_exceeded(*exceeded)),
        Denial::Iam(IamError::Signature(error)) => return (StatusCode::FORBIDDEN, signature_error(error).1.into()),
        Denial::Iam(IamError::AccessDenied(_)) => return (StatusCode::FORBIDDEN, denial.to_string().into()),
    };
    (status, Cow::Borrowed(message))
}

fn refused(status: StatusCode, message: &str, refusal: &Refusal) -> Response<Body> {
    let body = three_keys(message, refusal.connection_id, refusal.request_id);
    let mut response = respond(status, JSON_UTF8, body);
    if let Ok(request_id) = HeaderValue::from_str(refusal.request_id.as_str()) {
        response.headers_mut().insert(X_AMZ_APIGW_ID, request_id);
    }
    response
}

fn usage_exceeded(exceeded: UsageExceeded) -> &'static str {
    match exceeded {
        UsageExceeded::Throttle => TOO_MANY_REQUESTS,
        UsageExceeded::Quota => LIMIT_EXCEEDED,
    }
}

/// Returns AWS's error type and message for a signature that is not valid.
fn signature_error(error: &SignatureError) -> (&'static str, String) {
    match error {
        SignatureError::Missing => ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned()),
        SignatureError::Incomplete(_) => ("IncompleteSignatureException", error.to_string()),
        SignatureError::Invalid(_) | SignatureError::Mismatch => ("InvalidSignatureException", error.to_string()),
        SignatureError::UnknownKey => {
            ("UnrecognizedClientException", "The security token included in the request is invalid.".to_owned())
        }
        SignatureError::Expired => {
            ("ExpiredTokenException", "The security token included in the request is expired".to_owned())
        }
    }
}

/// The side that refused a client: the gateway, with a status and a message, or the backend, with its answer.
enum Refused<'a> {
    Gateway(StatusCode, Cow<'static, str>),
    Backend(&'a Answer),
}

fn refused_by(error: &ConnectError) -> Refused<'_> {
    let (status, message) = match error {
        ConnectError::MissingParameter(_) => (StatusCode::BAD_REQUEST, "Missing required request parameters"),
        ConnectError::Throttled { .. } => (StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS),
        ConnectError::Denied(denial) => {
            let (status, message) = denied(denial);
            return Refused::Gateway(status, message);
        }
        ConnectError::Full | ConnectError::Backlog | ConnectError::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
        }
        ConnectError::Refused(answer) => return Refused::Backend(answer),
        ConnectError::Integration(error) => match error {
            IntegrationError::Call(CallError::TimedOut { .. }) => (StatusCode::GATEWAY_TIMEOUT, ENDPOINT_TIMED_OUT),
            IntegrationError::Call(CallError::Overloaded) => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            IntegrationError::Refused(answer) if answer.status.is_client_error() => return Refused::Backend(answer),
            IntegrationError::Call(_)
            | IntegrationError::Redirect(_)
            | IntegrationError::Refused(_)
            | IntegrationError::Function
            | IntegrationError::Unreadable(_) => (StatusCode::BAD_GATEWAY, INTERNAL_SERVER_ERROR),
        },
    };
    Refused::Gateway(status, Cow::Borrowed(message))
}

/// Returns the status for a client that was not admitted, and the message if the gateway refused it and not the
/// backend.
pub(super) fn refusal_status(error: &ConnectError) -> (StatusCode, Option<Cow<'static, str>>) {
    match refused_by(error) {
        Refused::Gateway(status, message) => (status, Some(message)),
        Refused::Backend(answer) => (answer.status, None),
    }
}

/// Returns the HTTP status that is recorded for a failed message, and the message that its client gets.
pub(super) fn failure_status(error: &MessageError) -> (StatusCode, &'static str) {
    match error {
        MessageError::NoRoute => (StatusCode::FORBIDDEN, "Forbidden"),
        MessageError::Throttled { .. } => (StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS),
        MessageError::UsageExceeded(exceeded) => (StatusCode::TOO_MANY_REQUESTS, usage_exceeded(*exceeded)),
        MessageError::RefreshDenied(_) => (StatusCode::UNAUTHORIZED, UNAUTHORIZED),
        MessageError::Integration(IntegrationError::Call(CallError::TimedOut { .. })) => {
            (StatusCode::GATEWAY_TIMEOUT, ENDPOINT_TIMED_OUT)
        }
        MessageError::Integration(IntegrationError::Call(CallError::Overloaded)) => {
            (StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS)
        }
        MessageError::Integration(_) => (StatusCode::BAD_GATEWAY, INTERNAL_SERVER_ERROR),
        MessageError::ReplyTooLarge { .. } => (StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_SERVER_ERROR),
    }
}

/// Returns the frame that a client gets for a failed message, byte for byte as on AWS. AWS has no `reason`; if there is
/// one, the frame has it as one more member.
pub fn error_frame(
    error: &MessageError,
    connection_id: ConnectionId,
    request_id: EventId,
    reason: Option<Reason>,
) -> DataFrame {
    let mut text = three_keys(failure_status(error).1, connection_id, request_id);
    if let Some(reason) = reason {
        text.truncate(text.len() - 1);
        text.push_str(&format!(r#", "reason":"{}"}}"#, reason.code()));
    }
    DataFrame::text(text)
}

/// Adds the header `x-tidegate-reason` to `response`. It tells developers why a client was refused.
pub fn explain(response: &mut Response<Body>, reason: Reason) {
    response.headers_mut().insert(X_TIDEGATE_REASON, HeaderValue::from_static(reason.code()));
}

/// Returns the frame that tells a client when its token expires.
pub fn token_frame(
    notice: TokenNotice,
    connection_id: ConnectionId,
    request_id: EventId,
    expires_at: Timestamp,
) -> DataFrame {
    let message = match notice {
        TokenNotice::Refreshed => "Token refreshed",
        TokenNotice::Expires => "Token expires",
    };
    let expires_at = expires_at.millis();
    let mut frame = three_keys(message, connection_id, request_id);
    frame.truncate(frame.len() - 1);
    DataFrame::text(format!(r#"{frame}, "expiresAt":{expires_at}}}"#))
}

/// The kind of a frame about a client's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenNotice {
    /// A fresh token was accepted.
    Refreshed,
    /// The present token expires soon.
    Expires,
}

/// Returns the response to a failed call of `@connections`.
pub fn connections_api(error: &ConnectionsApiError) -> Response<Body> {
    match error {
        ConnectionsApiError::UnknownMethod => {
            typed(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", "Missing Authentication Token")
        }
        ConnectionsApiError::Denied(IamError::Signature(error)) => {
            let (error_type, message) = signature_error(error);
            typed(StatusCode::FORBIDDEN, error_type, &message)
        }
        // Here AWS writes `Message`.
        ConnectionsApiError::Denied(denial @ IamError::AccessDenied(_)) => {
            let mut response = typed(StatusCode::FORBIDDEN, "AccessDeniedException", "");
            *response.body_mut() = Full::from(object!({ "Message": denial.to_string() }).to_string());
            response
        }
        ConnectionsApiError::UsageExceeded(_) => {
            retry_soon(typed(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", LIMIT_EXCEEDED))
        }
        ConnectionsApiError::InvalidConnectionId(id) => {
            typed(StatusCode::BAD_REQUEST, "BadRequestException", &format!("Invalid connectionId: {id}"))
        }
        ConnectionsApiError::BadRequest(message) => typed(StatusCode::BAD_REQUEST, "BadRequestException", message),
        ConnectionsApiError::InvalidName(_)
        | ConnectionsApiError::InvalidMessage { .. }
        | ConnectionsApiError::InvalidExcept
        | ConnectionsApiError::TooManyGroups { .. } => {
            typed(StatusCode::BAD_REQUEST, "BadRequestException", &error.to_string())
        }
        ConnectionsApiError::OverLimit { .. } => {
            typed(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLargeException", &error.to_string())
        }
        ConnectionsApiError::Gone => {
            let mut response = empty(StatusCode::GONE);
            response.headers_mut().insert(X_AMZN_ERROR_TYPE, HeaderValue::from_static("GoneException"));
            response
        }
        // AWS sends neither an error type nor a body here. SDKs derive their error from the status.
        ConnectionsApiError::TooLarge => empty(StatusCode::PAYLOAD_TOO_LARGE),
        ConnectionsApiError::BufferFull | ConnectionsApiError::Throttled => {
            retry_soon(typed(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", LIMIT_EXCEEDED))
        }
        ConnectionsApiError::OwnerUnreachable | ConnectionsApiError::BodiesFull => {
            retry_soon(typed(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", &error.to_string()))
        }
        // A client error, because SDKs do not retry those.
        ConnectionsApiError::DeliveryUnknown => {
            typed(StatusCode::FAILED_DEPENDENCY, "DeliveryUnknownException", &error.to_string())
        }
        ConnectionsApiError::BodyTimeout | ConnectionsApiError::BodyLost => {
            typed(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", &error.to_string())
        }
    }
}

/// Returns a response with AWS's error type and a message.
fn typed(status: StatusCode, error_type: &'static str, message: &str) -> Response<Body> {
    let mut response = json(status, &object!({ "message": message }));
    response.headers_mut().insert(X_AMZN_ERROR_TYPE, HeaderValue::from_static(error_type));
    response
}

/// Returns the backend's own answer as the response to a client that it refused.
fn answer_of_backend(answer: &Answer) -> Response<Body> {
    let mut response = Response::new(Full::new(answer.body.clone().unwrap_or_default()));
    *response.status_mut() = answer.status;
    let mut headers = answer.headers.clone();
    remove_hop_by_hop(&mut headers);
    let kept = |name: &HeaderName| {
        !matches!(name.as_str(), "content-length" | "date" | "sec-websocket-accept")
            && !name.as_str().starts_with("x-tidegate-")
    };
    for (name, value) in headers.iter().filter(|(name, _)| kept(name)) {
        response.headers_mut().append(name.clone(), value.clone());
    }
    response
}

fn retry_soon(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn three_keys(message: &str, connection_id: ConnectionId, request_id: EventId) -> String {
    let message = object!(message);
    format!(r#"{{"message": {message}, "connectionId":"{connection_id}", "requestId":"{request_id}"}}"#)
}
