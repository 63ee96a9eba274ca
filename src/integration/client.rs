use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Handshake;
use super::http_request::{HttpRequest, Sources, http_request};
use super::proxy_answer::{self, ProxyAnswer, ProxyAnswerError};
use super::proxy_event::proxy_event;
use crate::deployment::{Integration, IntegrationKind, Route, Stage};
use crate::http_client::{self, Backend, Call, CallError, Counts, HttpClient};
use crate::limits::quota::ANSWER_MAX_BYTES;
use crate::request_context::{Event, RequestContext};
use crate::telemetry::metrics::BackendFill;
use crate::trace_context::{TraceContext, X_AMZN_TRACE_ID};

const FUNCTION_ERROR: &str = "x-amz-function-error";

/// Calls backends.
#[derive(Clone, Debug)]
pub struct IntegrationClient {
    http_client: HttpClient,
}

/// What a client sent with the event.
#[derive(Clone, Debug)]
pub enum Payload {
    /// `$connect` and `$disconnect` have none.
    Empty,
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Payload {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Payload::Empty => 0,
            Payload::Text(text) => text.len(),
            Payload::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes, shared.
    pub fn bytes(&self) -> Bytes {
        match self {
            Payload::Empty => Bytes::new(),
            Payload::Text(text) => Bytes::from(text.clone()),
            Payload::Binary(bytes) => bytes.clone(),
        }
    }
}

/// The backend's own word, whatever it is.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The `tidegate` key of an `AWS_PROXY` answer.
    pub tidegate: Option<serde_json::Value>,
    /// A key of an `AWS_PROXY` answer that AWS would not take.
    pub unknown_key: Option<Box<str>>,
}

/// A call that is over.
#[derive(Debug)]
pub struct Called {
    pub outcome: Result<Answer, IntegrationError>,
    /// The source of a request parameter had no value, so the parameter was left out.
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

impl IntegrationClient {
    /// Whether any backend is crowded.
    pub fn is_crowded(&self) -> bool {
        self.http_client.is_crowded()
    }

    /// Calls through this HTTP client.
    pub fn new(http_client: HttpClient) -> Self {
        IntegrationClient { http_client }
    }

    /// How full the pools of all backends are.
    pub fn backends(&self) -> Vec<BackendFill> {
        let fill = |backend: Arc<Backend>| {
            let Counts { open, idle, waiting } = backend.counts();
            BackendFill { backend: backend.origin(), open, idle, waiting }
        };
        self.http_client.backends().into_iter().map(fill).collect()
    }

    /// Sends one event to a route's integration. `handshake` belongs to `$connect` alone. Its outcome is an error if the
    /// call failed, as the contract counts it.
    pub async fn call(
        &self,
        stage: &Stage,
        route: &Route,
        context: &RequestContext<'_>,
        handshake: Option<&Handshake>,
        payload: &Payload,
    ) -> Called {
        let integration = &*route.integration;
        let (call, left_out) = build_call(stage, integration, context, handshake, payload);
        let answer = self.http_client.send(&integration.backend, call).await.map_err(IntegrationError::Call);
        Called { outcome: answer.and_then(|answer| read_answer(&integration.kind, answer)), left_out }
    }
}

fn build_call(
    stage: &Stage,
    integration: &Integration,
    context: &RequestContext<'_>,
    handshake: Option<&Handshake>,
    payload: &Payload,
) -> (Call, bool) {
    let (method, request) = match &integration.kind {
        IntegrationKind::AwsProxy => {
            let mut headers = HeaderMap::with_capacity(16);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let body = proxy_event(context, &stage.variables, handshake, payload).into();
            let path_and_query = integration.path_and_query.clone();
            (Method::POST, HttpRequest { path_and_query, headers, body, left_out: false })
        }
        IntegrationKind::HttpProxy { method, parameters } => {
            let sources = Sources { context, stage_variables: &stage.variables, handshake, payload };
            (method.clone(), http_request(&integration.path_and_query, parameters, &sources))
        }
    };
    let mut headers = request.headers;
    add_context_headers(&mut headers, context, context.event.event_type());
    if let Some(signer) = &integration.signer {
        signer.sign(&mut headers, context.request_id.as_str(), context.request_time, &request.body);
    }
    let call = Call {
        method,
        path_and_query: request.path_and_query,
        headers,
        body: request.body,
        timeout: integration.timeout,
        answer_max_bytes: ANSWER_MAX_BYTES,
    };
    (call, request.left_out)
}

/// The headers that every call carries.
pub(super) fn add_context_headers(headers: &mut HeaderMap, context: &RequestContext<'_>, event_type: &str) {
    let connection = context.connection;
    let mut set = |name: &'static str, value: &str| {
        headers.insert(HeaderName::from_static(name), header_value(value));
    };
    set("x-tidegate-connection-id", &connection.id.to_string());
    set("x-tidegate-api-id", &connection.api_id);
    set("x-tidegate-stage", &connection.stage);
    set("x-tidegate-route-key", context.route_key);
    set("x-tidegate-event-type", event_type);
    set("x-tidegate-request-id", context.request_id.as_str());
    set("x-tidegate-callback-url", &context.callback_url);
    match &context.event {
        Event::Connect | Event::Message { .. } => set("x-tidegate-attempt", "1"),
        Event::Disconnect { code, reason, attempt } => {
            set("x-tidegate-attempt", &attempt.to_string());
            set("x-tidegate-disconnect-code", &code.to_string());
            set("x-tidegate-disconnect-reason", &utf8_percent_encode(reason, NON_ALPHANUMERIC).to_string());
        }
    }
    let trace = context.trace.unwrap_or_else(|| TraceContext::new(context.request_time, false));
    set("traceparent", &trace.traceparent());
    if trace.sampled {
        headers.insert(X_AMZN_TRACE_ID, header_value(&trace.amzn()));
    } else if !headers.contains_key(X_AMZN_TRACE_ID) {
        headers.insert(X_AMZN_TRACE_ID, header_value(&trace.root().to_string()));
    }
}

/// The text, percent-encoded if a header cannot hold it: route keys are free text.
fn header_value(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let encoded = if plain { Cow::Borrowed(text) } else { utf8_percent_encode(text, NON_ALPHANUMERIC).into() };
    HeaderValue::from_str(&encoded).expect("visible ASCII is a header value")
}

fn read_answer(kind: &IntegrationKind, answer: http_client::Answer) -> Result<Answer, IntegrationError> {
    let http_client::Answer { status, headers, body } = answer;
    if status.is_redirection() {
        return Err(IntegrationError::Redirect(status));
    }
    match kind {
        IntegrationKind::HttpProxy { .. } => Ok(Answer { status, headers, body, tidegate: None, unknown_key: None }),
        IntegrationKind::AwsProxy if !status.is_success() => {
            let answer = Answer { status, headers, body, tidegate: None, unknown_key: None };
            Err(IntegrationError::Refused(Box::new(answer)))
        }
        IntegrationKind::AwsProxy if headers.contains_key(FUNCTION_ERROR) => Err(IntegrationError::Function),
        IntegrationKind::AwsProxy => match proxy_answer::parse(&body) {
            Ok(ProxyAnswer { status, headers, body, tidegate, unknown_key }) => {
                Ok(Answer { status, headers, body, tidegate, unknown_key })
            }
            Err(ProxyAnswerError::Function) => Err(IntegrationError::Function),
            Err(error) => Err(IntegrationError::Unreadable(error)),
        },
    }
}
