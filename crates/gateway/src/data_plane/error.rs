use thiserror::Error;

use tidegate_access::authorizer::Denial;

use tidegate_access::iam::IamError;

use crate::deployment::OriginError;
use tidegate_access::usage::UsageExceeded;
use tidegate_connections::groups::InvalidMessage;
use tidegate_core::error_chain::chain;
use tidegate_core::id::{ConnectionId, EventId};
use tidegate_core::limits::ThrottleLevel;
use tidegate_core::topic::InvalidName;
use tidegate_integration::{Answer, IntegrationError};

/// A request that the router refuses.
#[derive(Debug, Error)]
pub enum RoutingError {
    #[error("there is no such API, stage or resource")]
    Forbidden,
    #[error("the listener does not answer for this Host")]
    HostNotAllowed,
    #[error("a web page may not make this call: it has an Origin or a Sec-Fetch-Site header and is not signed")]
    FromPage,
    #[error("the origin is not allowed")]
    OriginNotAllowed(#[source] OriginError),
    #[error("the URL is longer than {max} bytes")]
    UrlTooLong { max: usize },
    #[error("the head of the request is longer than {max} bytes")]
    HeadTooLarge { max: usize },
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("only version 13 of the WebSocket protocol is supported")]
    UpgradeRequired,
    #[error("the gateway is shutting down")]
    Draining,
    #[error("the address has reached its limit of connections")]
    TooManyConnections,
}

/// A client that was not admitted, with the ids of its `$connect`.
#[derive(Debug, Error)]
#[error("refused")]
pub struct Refusal {
    #[source]
    pub error: ConnectError,
    pub connection_id: ConnectionId,
    pub request_id: EventId,
}

/// The reason why a client was not admitted.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("the required request parameter `{0}` is missing")]
    MissingParameter(String),
    #[error("too many requests ({level})")]
    Throttled { level: ThrottleLevel },
    #[error("access denied")]
    Denied(#[source] Denial),
    #[error("the node has reached its limit of connections")]
    Full,
    #[error("the node has reached its limit of ended connections whose $disconnect is not delivered")]
    Backlog,
    #[error("the node cannot accept connections now")]
    Unavailable,
    #[error("the backend refused the client with status {}", .0.status)]
    Refused(Box<Answer>),
    #[error("the integration failed")]
    Integration(#[source] IntegrationError),
}

/// The reason why a message got no answer from its backend.
#[derive(Debug, Error)]
pub enum MessageError {
    #[error("no route has the selected key and there is no `$default` route")]
    NoRoute,
    #[error("too many requests ({level})")]
    Throttled { level: ThrottleLevel },
    #[error("the usage plan of the API key is exhausted")]
    UsageExceeded(#[source] UsageExceeded),
    #[error("the fresh token is not valid")]
    RefreshDenied(#[source] Denial),
    #[error("the integration failed")]
    Integration(#[source] IntegrationError),
    #[error("the reply is larger than {max} bytes")]
    ReplyTooLarge { max: usize },
}

/// The reason why a call of `@connections` failed.
#[derive(Debug, Error)]
pub enum ConnectionsApiError {
    #[error("the caller is not allowed to make this call")]
    Denied(#[source] IamError),
    #[error("the usage plan of the connection's API key is exhausted")]
    UsageExceeded(#[source] UsageExceeded),
    /// The text of the path. It goes into the answer but not into logs: a wrong path may contain a secret.
    #[error("not a connection id")]
    InvalidConnectionId(String),
    #[error("{0}")]
    BadRequest(&'static str),
    #[error(transparent)]
    InvalidName(InvalidName),
    #[error("message {number}: {}", chain(.error))]
    InvalidMessage { number: usize, error: InvalidMessage },
    #[error("x-tidegate-except must hold connection ids")]
    InvalidExcept,
    /// AWS's own calls are answered with [`ConnectionsApiError::TooLarge`].
    #[error("more than {max} {what}, which is the limit")]
    OverLimit { what: &'static str, max: usize },
    #[error("the connection has reached its limit of groups: limits.groupsPerConnection is {max}")]
    TooManyGroups { max: u32 },
    #[error("there is no such method")]
    UnknownMethod,
    #[error("the connection is gone or not open yet")]
    Gone,
    #[error("the data are larger than allowed")]
    TooLarge,
    #[error("the connection's send buffer is full")]
    BufferFull,
    #[error("too many requests (account)")]
    Throttled,
    #[error("the node that holds the connection cannot be reached, or may not serve now; nothing was written")]
    OwnerUnreachable,
    #[error("the node that holds the connection did not answer; the frame may have been written")]
    DeliveryUnknown,
    #[error("too many bodies are being read; nothing was done, try again")]
    BodiesFull,
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body did not arrive completely")]
    BodyLost,
}
