use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;

use futures_util::future::BoxFuture;

use super::condition::ConditionKeys;
use super::denial::Denial;
use super::sigv4::Received;
use crate::clock::Timestamp;
use crate::integration::Handshake;
use crate::principal::Principal;
use crate::request_context::RequestContext;
use crate::telemetry::{AuthorizerCall, AuthorizerKind};

/// What an authorizer is asked about a client that wants to connect.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) context: &'a RequestContext<'a>,
    pub(super) stage_variables: &'a BTreeMap<String, String>,
    pub(super) handshake: &'a Handshake,
    pub(super) received: Received<'a>,
    pub(super) method_arn: &'a str,
    pub(super) keys: &'a ConditionKeys<'a>,
    pub(super) now: Timestamp,
    /// Where the call of an authorizer is noted, for operators.
    pub(super) called: &'a OnceLock<AuthorizerCall>,
}

/// Who a client is, and the API key that the authorizer found for it.
#[derive(Debug, Default)]
pub(super) struct Authorized {
    pub(super) principal: Principal,
    pub(super) usage_identifier_key: Option<Box<str>>,
}

/// One kind of authorizer.
///
/// Contract: an answer is final and caches nothing by itself unless it says so; every wait is bounded; nothing of what
/// the client sent is in the error's text.
pub(super) trait Authorize: Debug + Send + Sync {
    /// What kind it is.
    fn kind(&self) -> AuthorizerKind;

    /// Who the client is, or why it may not enter.
    fn authorize<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<Authorized, Denial>>;

    /// The route key of messages that bring a fresh token.
    fn refresh_route_key(&self) -> Option<&str> {
        None
    }

    /// Who the client is from now on, by the token that it brought.
    fn refresh<'a>(
        &'a self,
        _token: &'a str,
        _principal: &'a Principal,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<Principal, Denial>> {
        Box::pin(std::future::ready(Err(Denial::Unauthorized)))
    }
}
