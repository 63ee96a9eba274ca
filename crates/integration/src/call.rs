use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use thiserror::Error;

use super::proxy_answer::ProxyAnswerError;
use super::{Handshake, Payload};
use tidegate_core::request_context::RequestContext;
use tidegate_http::http_client::{self, CallError};

/// The event and all other data from which a call of an integration is made.
#[derive(Clone, Copy)]
pub struct IntegrationRequest<'a> {
    pub context: &'a RequestContext<'a>,
    pub stage_variables: &'a BTreeMap<String, String>,
    /// The client's upgrade request, for `$connect` only.
    pub handshake: Option<&'a Handshake>,
    pub payload: &'a Payload,
}

/// The backend's answer, with any status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Text for the client. An empty text is sent as an empty frame; `None` sends nothing.
    pub body: Option<Bytes>,
    /// The `tidegate` key of an `AWS_PROXY` answer.
    pub tidegate: Option<serde_json::Value>,
    /// A key of an `AWS_PROXY` answer that AWS does not accept.
    pub unknown_key: Option<Box<str>>,
}

/// The result of a call.
#[derive(Debug)]
pub struct Called {
    pub outcome: Result<Answer, IntegrationError>,
    /// True if a request parameter was left out because its source had no value, or none that fits.
    pub left_out: bool,
}

/// The error of a call without a usable answer.
#[derive(Debug, Error)]
pub enum IntegrationError {
    #[error("the call to the backend failed")]
    Call(#[source] CallError),
    #[error("the backend redirected with status {0}; redirects are not followed")]
    Redirect(StatusCode),
    /// An `AWS_PROXY` backend answered with an HTTP status of 4xx or 5xx.
    #[error("the backend refused the call with status {}", .0.status)]
    Refused(Box<Answer>),
    #[error("the function behind the backend failed")]
    Function,
    #[error("the answer of the backend cannot be used")]
    Unreadable(#[source] ProxyAnswerError),
}

impl IntegrationError {
    /// Returns the label of `tidegate_integration_errors_total`.
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

    /// Returns the HTTP status of the answer, if one was received.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            IntegrationError::Call(CallError::TooLarge { status, .. }) | IntegrationError::Redirect(status) => {
                Some(*status)
            }
            IntegrationError::Refused(answer) => Some(answer.status),
            IntegrationError::Call(_) | IntegrationError::Function | IntegrationError::Unreadable(_) => None,
        }
    }

    /// Returns true if the backend may have received the event but gave no definite answer.
    pub fn is_indefinite(&self) -> bool {
        matches!(self, IntegrationError::Call(error) if error.may_have_been_received())
    }

    /// Returns true if the backend seems to be down as a whole, so that calling it again at once does not help.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            IntegrationError::Call(CallError::Unreachable(_) | CallError::TimedOut { .. } | CallError::Overloaded)
        )
    }
}

/// Returns the answer.
///
/// # Errors
/// Returns `Redirect` if the answer is a redirect.
pub(super) fn refuse_redirect(answer: http_client::Answer) -> Result<http_client::Answer, IntegrationError> {
    match answer.status.is_redirection() {
        true => Err(IntegrationError::Redirect(answer.status)),
        false => Ok(answer),
    }
}
