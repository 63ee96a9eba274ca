use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use thiserror::Error;

use super::proxy_answer::ProxyAnswerError;
use super::{Handshake, Payload};
use crate::http_client::{self, CallError};
use crate::request_context::RequestContext;

/// One event for an integration: everything that a call is made from.
#[derive(Clone, Copy)]
pub struct IntegrationRequest<'a> {
    pub context: &'a RequestContext<'a>,
    pub stage_variables: &'a BTreeMap<String, String>,
    /// The client's upgrade request; for `$connect` alone.
    pub handshake: Option<&'a Handshake>,
    pub payload: &'a Payload,
}

/// The backend's own word, whatever it is.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Text for the client. An empty one is sent as an empty frame; `None` sends nothing.
    pub body: Option<Bytes>,
    /// The `tidegate` key of an `AWS_PROXY` answer.
    pub tidegate: Option<serde_json::Value>,
    /// A key of an `AWS_PROXY` answer that AWS would not accept.
    pub unknown_key: Option<Box<str>>,
}

/// A call that is over.
#[derive(Debug)]
pub struct Called {
    pub outcome: Result<Answer, IntegrationError>,
    /// The source of a request parameter had no value that fits, so the parameter was left out.
    pub left_out: bool,
}

/// A failed call: the backend said nothing that counts.
#[derive(Debug, Error)]
pub enum IntegrationError {
    #[error("the call failed")]
    Call(#[source] CallError),
    #[error("the backend redirected with status {0}; redirects are not followed")]
    Redirect(StatusCode),
    /// An `AWS_PROXY` backend answered the invoke itself with 4xx or 5xx.
    #[error("the backend refused the call with status {}", .0.status)]
    Refused(Box<Answer>),
    #[error("the function behind the backend failed")]
    Function,
    #[error("the answer of the backend cannot be used")]
    Unreadable(#[source] ProxyAnswerError),
}

impl IntegrationError {
    /// The label of `tidegate_integration_errors_total`.
    pub fn kind(&self) -> &'static str {
        match self {
            IntegrationError::Call(CallError::Unreachable(_)) => "unreachable",
            IntegrationError::Call(CallError::Overloaded) => "overloaded",
            IntegrationError::Call(CallError::TimedOut { .. }) => "timeout",
            IntegrationError::Call(CallError::Lost(_)) => "lost",
            IntegrationError::Call(CallError::TooLarge { .. }) => "tooLarge",
            IntegrationError::Redirect(_) => "redirect",
            IntegrationError::Refused(_) => "status",
            IntegrationError::Function => "function",
            IntegrationError::Unreadable(_) => "unreadable",
        }
    }

    /// The status of the answer, if there was one that could be read so far.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            IntegrationError::Call(CallError::TooLarge { status, .. }) | IntegrationError::Redirect(status) => {
                Some(*status)
            }
            IntegrationError::Refused(answer) => Some(answer.status),
            IntegrationError::Call(_) | IntegrationError::Function | IntegrationError::Unreadable(_) => None,
        }
    }

    /// Whether the backend may have received the event without giving a definite answer to it.
    pub fn is_indefinite(&self) -> bool {
        matches!(self, IntegrationError::Call(error) if error.may_have_been_received())
    }

    /// Whether the backend as a whole seems to be away, so that calling it again at once is no use.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            IntegrationError::Call(CallError::Unreachable(_) | CallError::TimedOut { .. } | CallError::Overloaded)
        )
    }
}

/// Passes on an answer that is no redirect.
pub(super) fn refuse_redirect(answer: http_client::Answer) -> Result<http_client::Answer, IntegrationError> {
    match answer.status.is_redirection() {
        true => Err(IntegrationError::Redirect(answer.status)),
        false => Ok(answer),
    }
}
