//! What a caller gives and gets: [`Call`], [`Answer`], [`CallError`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};

use super::ConnectError;

/// One request to a backend.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,

    pub path_and_query: PathAndQuery,

    /// Sent as they are. `Host` is the backend's authority unless it is here; `Content-Length` is the body's.
    pub headers: HeaderMap,

    pub body: Bytes,

    /// One deadline for the whole call, from waiting for a connection to the last byte of the answer.
    pub timeout: Duration,

    /// Largest body of the answer that is read, in bytes. A larger one is [`CallError::TooLarge`].
    pub answer_max_bytes: usize,
}

/// What the backend answered, whatever its status: redirects are not followed.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,

    pub headers: HeaderMap,

    /// The whole body, at most `answer_max_bytes` long.
    pub body: Bytes,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection could be had; nothing was sent. The cause is shared by all calls that waited for it.
    #[error("could not reach the backend")]
    Unreachable(#[source] Arc<ConnectError>),

    /// Too many calls wait for a connection to this backend already; nothing was sent.
    #[error("too many calls wait for a connection to the backend")]
    Overloaded,

    /// The call's deadline passed. `sent`: the request was handed to a connection, so that some or all of it may have
    /// been written.
    #[error("the backend did not answer in time")]
    TimedOut { sent: bool },

    /// The connection ended, or said something that is not HTTP, before the whole answer was there.
    #[error("the answer of the backend was lost")]
    Lost(#[source] hyper::Error),

    /// The body of the answer is larger than the call allows, in bytes.
    #[error("the answer of the backend is larger than {max} bytes")]
    TooLarge { status: StatusCode, max: usize },
}

impl CallError {
    /// Whether the backend may have received the request, or a part of it.
    pub fn may_have_been_received(&self) -> bool {
        match self {
            CallError::Unreachable(_) | CallError::Overloaded => false,
            CallError::TimedOut { sent } => *sent,
            CallError::Lost(_) | CallError::TooLarge { .. } => true,
        }
    }
}
