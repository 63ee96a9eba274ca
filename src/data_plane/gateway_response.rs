//! What an error looks like to the client or backend that it concerns: HTTP status and body, or error frame.
//!
//! Sources: AWS, "Gateway response types for API Gateway"; recorded answers of WebSocket APIs.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::{ConnectError, ConnectionsApiError, MessageError, Refusal, RoutingError};
use crate::authorizer::{Denial, RequestAuthorizerError, SignatureError, UsageExceeded};
use crate::clock::Timestamp;
use crate::http_client::CallError;
use crate::id::{ConnectionId, EventId};
use crate::integration::{Answer, IntegrationError, is_hop_by_hop};
use crate::session::Frame;

/// The body of every answer of the gateway: whole, in memory.
pub type Body = Full<Bytes>;

const JSON_UTF8: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const X_AMZN_ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const X_AMZ_APIGW_ID: HeaderName = HeaderName::from_static("x-amz-apigw-id");

const INTERNAL_SERVER_ERROR: &str = "Internal server error";
const ENDPOINT_TIMED_OUT: &str = "Endpoint request timed out";
const UNAUTHORIZED: &str = "Unauthorized";
const LIMIT_EXCEEDED: &str = "Limit Exceeded";
const TOO_MANY_REQUESTS: &str = "Too Many Requests";

/// The answer to a request that leads nowhere.
pub fn routing(error: &RoutingError) -> Response<Body> {
    match error {
        RoutingError::Forbidden => typed(StatusCode::FORBIDDEN, "ForbiddenException", "Forbidden"),
        RoutingError::HostNotAllowed => typed(StatusCode::FORBIDDEN, "ForbiddenException", &error.to_string()),
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

/// The answer to a client that was not admitted.
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    let (status, message) = match &refusal.error {
        ConnectError::MissingParameter(_) => (StatusCode::BAD_REQUEST, "Missing required request parameters"),
        ConnectError::Throttled { .. } => (StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS),
        ConnectError::Denied(denial) => return denied(denial, refusal),
        ConnectError::Full | ConnectError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        ConnectError::Refused(answer) => return backends_own(answer),
        ConnectError::Integration(error) => match error {
            IntegrationError::Call(CallError::TimedOut { .. }) => (StatusCode::GATEWAY_TIMEOUT, ENDPOINT_TIMED_OUT),
            IntegrationError::Refused(answer) if answer.status.is_client_error() => return backends_own(answer),
            IntegrationError::Call(_)
            | IntegrationError::Redirect(_)
            | IntegrationError::Refused(_)
            | IntegrationError::Function
            | IntegrationError::Unreadable(_) => (StatusCode::BAD_GATEWAY, INTERNAL_SERVER_ERROR),
        },
    };
    let response = refused(status, message, refusal);
    match &refusal.error {
        ConnectError::Throttled { .. } | ConnectError::Full | ConnectError::Unavailable => retry_soon(response),
        ConnectError::MissingParameter(_)
        | ConnectError::Denied(_)
        | ConnectError::Refused(_)
        | ConnectError::Integration(_) => response,
    }
}

/// The answer to a client that may not enter.
fn denied(denial: &Denial, refusal: &Refusal) -> Response<Body> {
    let iam;
    let (status, message) = match denial {
        Denial::MissingIdentitySource(_) | Denial::Token(_) | Denial::Unauthorized => {
            (StatusCode::UNAUTHORIZED, UNAUTHORIZED)
        }
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
        // AWS says nothing about an answer that it cannot use.
        Denial::Authorizer(RequestAuthorizerError::Answer(_)) => (StatusCode::INTERNAL_SERVER_ERROR, ""),
        Denial::Authorizer(RequestAuthorizerError::Call(_) | RequestAuthorizerError::Status(_)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_SERVER_ERROR)
        }
        Denial::UsageExceeded(exceeded) => {
            return retry_soon(refused(StatusCode::TOO_MANY_REQUESTS, usage_exceeded(*exceeded), refusal));
        }
        Denial::Signature(error) => {
            iam = signature_error(error).1;
            (StatusCode::FORBIDDEN, &*iam)
        }
        Denial::Iam { .. } => {
            iam = denial.to_string();
            (StatusCode::FORBIDDEN, &*iam)
        }
    };
    refused(status, message, refusal)
}

fn refused(status: StatusCode, message: &str, refusal: &Refusal) -> Response<Body> {
    let body = three_keys(message, refusal.connection_id, refusal.request_id);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON_UTF8);
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

/// AWS's code and text for a signature that does not count.
fn signature_error(error: &SignatureError) -> (&'static str, String) {
    match error {
        SignatureError::Missing => ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned()),
        SignatureError::Incomplete(_) => ("IncompleteSignatureException", error.to_string()),
        SignatureError::Invalid(_) | SignatureError::Mismatch => ("InvalidSignatureException", error.to_string()),
        SignatureError::UnknownKey => {
            ("UnrecognizedClientException", "The security token included in the request is invalid.".to_owned())
        }
    }
}

/// The frame that a client gets for a message that failed. Spelled as AWS does, blanks included.
pub fn error_frame(error: &MessageError, connection_id: ConnectionId, request_id: EventId) -> Frame {
    let message = match error {
        MessageError::NoRoute => "Forbidden",
        MessageError::Throttled { .. } => TOO_MANY_REQUESTS,
        MessageError::UsageExceeded(exceeded) => usage_exceeded(*exceeded),
        MessageError::RefreshDenied(_) => UNAUTHORIZED,
        MessageError::Integration(IntegrationError::Call(CallError::TimedOut { .. })) => ENDPOINT_TIMED_OUT,
        MessageError::Integration(_) | MessageError::ReplyTooLarge { .. } => INTERNAL_SERVER_ERROR,
    };
    Frame::text(three_keys(message, connection_id, request_id))
}

/// The frame that tells a client until when its fresh token holds, or when the one that it has expires.
pub fn token_frame(
    notice: TokenNotice,
    connection_id: ConnectionId,
    request_id: EventId,
    expires_at: Timestamp,
) -> Frame {
    let message = match notice {
        TokenNotice::Refreshed => "Token refreshed",
        TokenNotice::Expires => "Token expires",
    };
    let expires_at = expires_at.millis();
    let mut frame = three_keys(message, connection_id, request_id);
    frame.truncate(frame.len() - 1);
    Frame::text(format!(r#"{frame}, "expiresAt":{expires_at}}}"#))
}

/// What a client is told of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenNotice {
    Refreshed,
    Expires,
}

/// The answer to a failed call of `@connections`.
pub fn connections_api(error: &ConnectionsApiError) -> Response<Body> {
    match error {
        ConnectionsApiError::UnknownMethod => {
            typed(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", "Missing Authentication Token")
        }
        ConnectionsApiError::Denied(Denial::Signature(error)) => {
            let (error_type, message) = signature_error(error);
            typed(StatusCode::FORBIDDEN, error_type, &message)
        }
        // Here AWS writes `Message`.
        ConnectionsApiError::Denied(denial) => {
            let mut response = typed(StatusCode::FORBIDDEN, "AccessDeniedException", "");
            *response.body_mut() = Full::from(json!({ "Message": denial.to_string() }).to_string());
            response
        }
        ConnectionsApiError::UsageExceeded(_) => {
            retry_soon(typed(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", LIMIT_EXCEEDED))
        }
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
        ConnectionsApiError::BufferFull | ConnectionsApiError::Throttled => {
            retry_soon(typed(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", LIMIT_EXCEEDED))
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
    let message = json!(message);
    format!(r#"{{"message": {message}, "connectionId":"{connection_id}", "requestId":"{request_id}"}}"#)
}
