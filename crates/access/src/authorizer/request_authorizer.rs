use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Method;
use http::uri::PathAndQuery;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::time::Instant;

use super::authorize::{AuthorizeRequest, AuthorizeResponse, Authorizer};
use super::authorizer_answer::{ANSWER_MAX_BYTES, AuthorizerAnswer, AuthorizerAnswerError, parse};
use super::denial::Denial;
use super::identity_source::IdentitySource;
use crate::iam::INVOKE;
use crate::iam::policy::{Decision, PolicyRequest};
use tidegate_core::lock::lock;
use tidegate_core::principal::Principal;
use tidegate_http::http_client::{Backend, Call, CallError, HttpClient};
use tidegate_integration::authorizer_request;
use tidegate_telemetry::{AuthorizerCall, AuthorizerKind};

const X_AMZN_REQUEST_ID: &str = "x-amzn-requestid";
const FUNCTION_ERROR: &str = "x-amz-function-error";

/// Most answers in the cache of one authorizer. If all of them are still valid, any one is dropped for a new one.
const CACHE_MAX: usize = 10_000;

/// The REQUEST authorizer: calls an HTTP server or a Lambda function for each client.
#[derive(Debug)]
pub(super) struct RequestAuthorizer {
    pub(super) http_client: HttpClient,
    pub(super) backend: Arc<Backend>,
    pub(super) path_and_query: PathAndQuery,
    pub(super) timeout: Duration,
    pub(super) identity_sources: Vec<IdentitySource>,
    /// Cache of answers for clients with the same identity sources; `None` if answers are not reused.
    pub(super) cache: Option<AnswerCache>,
}

/// The reason why an authorizer gave no usable answer.
#[derive(Debug, Error)]
pub enum RequestAuthorizerError {
    #[error("the call failed")]
    Call(#[source] CallError),
    #[error("the authorizer answered with status {0}")]
    Status(http::StatusCode),
    #[error("the answer cannot be used")]
    Answer(#[source] AuthorizerAnswerError),
}

impl Authorizer for RequestAuthorizer {
    fn kind(&self) -> AuthorizerKind {
        AuthorizerKind::Request
    }

    /// 1. identity sources  2. cache  3. call  4. policy
    fn authorize<'a>(&'a self, request: AuthorizeRequest<'a>) -> BoxFuture<'a, Result<AuthorizeResponse, Denial>> {
        Box::pin(self.ask(request))
    }
}

impl RequestAuthorizer {
    async fn ask(&self, request: AuthorizeRequest<'_>) -> Result<AuthorizeResponse, Denial> {
        let identity = self.identity(&request)?;
        let started = Instant::now();
        let cached = self.cache.as_ref().and_then(|cache| cache.get(&identity, started));
        let answer = match cached {
            Some(answer) => answer,
            None => {
                let answer = Arc::new(self.call(&request).await?);
                if let Some(cache) = &self.cache {
                    cache.put(&identity, Arc::clone(&answer), Instant::now());
                }
                answer
            }
        };
        let evaluated = PolicyRequest { action: INVOKE, resource: request.method_arn, keys: request.keys };
        match answer.policy.evaluate(&evaluated) {
            Decision::Allow => {}
            Decision::ExplicitDeny => return Err(Denial::ExplicitDeny),
            Decision::NoAllow => return Err(Denial::NoAllow { resource: request.method_arn.to_owned() }),
        }
        let principal = Principal {
            authorizer: Some(answer.context.clone()),
            integration_latency: u64::try_from(started.elapsed().as_millis()).ok(),
            ..Principal::default()
        };
        Ok(AuthorizeResponse { principal, usage_identifier_key: answer.usage_identifier_key.clone() })
    }

    /// Returns the values of all identity sources.
    fn identity<'a>(&self, request: &AuthorizeRequest<'a>) -> Result<Vec<Cow<'a, str>>, Denial> {
        let value = |source: &IdentitySource| source.value(request.context, request.stage_variables, request.handshake);
        self.identity_sources.iter().map(value).collect()
    }

    async fn call(&self, request: &AuthorizeRequest<'_>) -> Result<AuthorizerAnswer, Denial> {
        let AuthorizeRequest { context, stage_variables, handshake, method_arn, called, .. } = *request;
        let call = || {
            let judged = self.identity_sources.iter().filter_map(IdentitySource::header);
            let request = authorizer_request(context, stage_variables, handshake, judged, method_arn);
            Call {
                method: Method::POST,
                path_and_query: self.path_and_query.clone(),
                headers: request.headers,
                body: request.body,
                timeout: self.timeout,
                answer_max_bytes: ANSWER_MAX_BYTES,
            }
        };
        let failed = Denial::Authorizer;
        let started = Instant::now();
        let answer = self.http_client.send(&self.backend, call).await;
        let answered = answer.as_ref().ok();
        let request_id = answered.and_then(|answer| answer.headers.get(X_AMZN_REQUEST_ID)?.to_str().ok());
        // The cell is empty: one request makes one call.
        let _ = called.set(AuthorizerCall {
            status: answered.map(|answer| answer.status.as_u16()),
            latency: started.elapsed(),
            request_id: request_id.map(str::to_owned),
        });
        let answer = answer.map_err(|error| match error {
            CallError::TooLarge { .. } => failed(RequestAuthorizerError::Answer(AuthorizerAnswerError::TooLarge)),
            error => failed(RequestAuthorizerError::Call(error)),
        })?;
        if !answer.status.is_success() {
            return Err(failed(RequestAuthorizerError::Status(answer.status)));
        }
        match parse(&answer.body) {
            Err(AuthorizerAnswerError::Unauthorized) => Err(Denial::Unauthorized),
            Err(error) => Err(failed(RequestAuthorizerError::Answer(error))),
            Ok(_) if answer.headers.contains_key(FUNCTION_ERROR) => {
                Err(failed(RequestAuthorizerError::Answer(AuthorizerAnswerError::Function)))
            }
            Ok(answer) => Ok(answer),
        }
    }
}

/// An answer and the time until which it is valid.
type Kept = (Instant, Arc<AuthorizerAnswer>);

/// The cache of answers, by the hash of the identity sources' values, so that it holds no tokens.
///
/// Only the answer is cached. Its policy is evaluated anew for each client.
#[derive(Debug)]
pub(super) struct AnswerCache {
    ttl: Duration,
    answers: Mutex<HashMap<[u8; 32], Kept>>,
}

impl AnswerCache {
    pub(super) fn new(ttl: Duration) -> Self {
        AnswerCache { ttl, answers: Mutex::default() }
    }

    fn get(&self, identity: &[Cow<'_, str>], now: Instant) -> Option<Arc<AuthorizerAnswer>> {
        let answers = lock(&self.answers);
        let (until, answer) = answers.get(&hash(identity))?;
        (*until > now).then(|| Arc::clone(answer))
    }

    fn put(&self, identity: &[Cow<'_, str>], answer: Arc<AuthorizerAnswer>, now: Instant) {
        let mut answers = lock(&self.answers);
        if answers.len() >= CACHE_MAX {
            answers.retain(|_, (until, _)| *until > now);
            if answers.len() >= CACHE_MAX
                && let Some(any) = answers.keys().next().copied()
            {
                answers.remove(&any);
            }
        }
        answers.insert(hash(identity), (now + self.ttl, answer));
    }
}

/// Hashes a list of values, with their lengths, so that different lists have different hashes.
fn hash(identity: &[Cow<'_, str>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for value in identity {
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value.as_bytes());
    }
    hash.finalize().into()
}
