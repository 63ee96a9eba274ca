//! The request and the result of a call: [`Call`], [`Answer`], [`CallError`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};

use super::ConnectError;

/// A request to a backend.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,

    pub path_and_query: PathAndQuery,

    /// Headers, sent unchanged. `Host` is the backend's authority unless it is given here; `Content-Length` is set from
    /// the body.
    pub headers: HeaderMap,

    pub body: Bytes,

    /// Time for the whole call, from waiting for a connection to the last byte of the answer.
    pub timeout: Duration,

    /// Largest body of the answer that is read, in bytes. A larger one is [`CallError::TooLarge`].
    pub answer_max_bytes: usize,
}

/// The backend's answer, with any status. Redirects are not followed.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,

    pub headers: HeaderMap,

    /// The whole body, at most `answer_max_bytes` long.
    pub body: Bytes,
}

/// The reason why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection was available, and nothing was sent. All calls that waited for the connection share the cause.
    #[error("could not reach the backend")]
    Unreachable(#[source] Arc<ConnectError>),

    /// The queue of calls that wait for a connection to this backend is full. Nothing was sent.
    #[error("too many calls wait for a connection to the backend")]
    Overloaded,

    /// The call's deadline passed. With `sent`, the request was handed to a connection, so some or all of it may have
    /// been written.
    #[error("the backend did not answer in time")]
    TimedOut { sent: bool },

    /// The connection ended, or carried something that is not HTTP, before the whole answer was received.
    #[error("the backend's answer was lost: it did not arrive whole")]
    Lost(#[source] hyper::Error),

    /// The body of the answer is larger than `max` bytes.
    #[error("the backend's answer is larger than {max} bytes")]
    TooLarge { status: StatusCode, max: usize },
}

impl CallError {
    /// Returns true if the backend may have received the request, or a part of it.
    pub fn may_have_been_received(&self) -> bool {
        match self {
            CallError::Unreachable(_) | CallError::Overloaded => false,
            CallError::TimedOut { sent } => *sent,
            CallError::Lost(_) | CallError::TooLarge { .. } => true,
        }
    }
}
