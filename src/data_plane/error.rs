use thiserror::Error;

use crate::authorizer::Denial;

use crate::iam::IamError;

use crate::deployment::OriginError;
use crate::error_chain::chain;
use crate::groups::InvalidMessage;
use crate::id::{ConnectionId, EventId};
use crate::integration::{Answer, IntegrationError};
use crate::limits::ThrottleLevel;
use crate::topic::InvalidName;
use crate::usage::UsageExceeded;

/// A request that leads nowhere.
#[derive(Debug, Error)]
pub enum RoutingError {
    #[error("no API, stage or resource is there")]
    Forbidden,
    #[error("the listener does not answer for this Host")]
    HostNotAllowed,
    #[error("a web page may not make this call: it has an Origin or a Sec-Fetch-Site header and is not signed")]
    FromPage,
    #[error("the page may not connect")]
    OriginNotAllowed(#[source] OriginError),
    #[error("the URL is longer than {max} bytes")]
    UrlTooLong { max: usize },
    #[error("the head of the request is longer than {max} bytes")]
    HeadTooLarge { max: usize },
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("only version 13 of the WebSocket protocol is spoken here")]
    UpgradeRequired,
    #[error("the gateway is going down")]
    Draining,
    #[error("the address has as many connections as it may")]
    TooManyConnections,
}

/// A client that was not admitted, and the ids that its `$connect` had.
#[derive(Debug, Error)]
#[error("refused")]
pub struct Refusal {
    #[source]
    pub error: ConnectError,
    pub connection_id: ConnectionId,
    pub request_id: EventId,
}

/// Why a client was not admitted.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("the required request parameter `{0}` is missing")]
    MissingParameter(String),
    #[error("too many requests ({level})")]
    Throttled { level: ThrottleLevel },
    #[error("the client may not enter")]
    Denied(#[source] Denial),
    #[error("the node has as many connections as it may")]
    Full,
    #[error("as many ended connections wait for their $disconnect as may")]
    Backlog,
    #[error("the node may take no connections now")]
    Unavailable,
    #[error("the backend refused the client with status {}", .0.status)]
    Refused(Box<Answer>),
    #[error("the integration failed")]
    Integration(#[source] IntegrationError),
}

/// Why a message got no answer from its backend.
#[derive(Debug, Error)]
pub enum MessageError {
    #[error("no route has the selected key and there is no `$default` route")]
    NoRoute,
    #[error("too many requests ({level})")]
    Throttled { level: ThrottleLevel },
    #[error("the API key's usage plan has no more to give")]
    UsageExceeded(#[source] UsageExceeded),
    #[error("the fresh token does not count")]
    RefreshDenied(#[source] Denial),
    #[error("the integration failed")]
    Integration(#[source] IntegrationError),
    #[error("the reply is larger than {max} bytes")]
    ReplyTooLarge { max: usize },
}

/// Why a call of `@connections` failed.
#[derive(Debug, Error)]
pub enum ConnectionsApiError {
    #[error("the caller may not do this")]
    Denied(#[source] IamError),
    #[error("the usage plan of the connection's API key has no more to give")]
    UsageExceeded(#[source] UsageExceeded),
    /// What was typed. It is answered and not printed: who mistakes a path may have put a secret there.
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
    #[error("the connection is in as many groups as it may be in: limits.groupsPerConnection is {max}")]
    TooManyGroups { max: u32 },
    #[error("there is no such method")]
    UnknownMethod,
    #[error("the connection is gone, or not there yet")]
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
    #[error("the body did not arrive whole")]
    BodyLost,
}
