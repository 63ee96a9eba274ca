use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;

use futures_util::future::BoxFuture;

use super::denial::Denial;
use crate::iam::{ConditionKeys, Received};
use tidegate_core::clock::Timestamp;
use tidegate_core::principal::Principal;
use tidegate_core::request_context::RequestContext;
use tidegate_integration::Handshake;
use tidegate_telemetry::{AuthorizerCall, AuthorizerKind};

/// The input of an authorizer: a client that wants to connect.
#[derive(Clone, Copy)]
pub(super) struct AuthorizeRequest<'a> {
    pub(super) context: &'a RequestContext<'a>,
    pub(super) stage_variables: &'a BTreeMap<String, String>,
    pub(super) handshake: &'a Handshake,
    pub(super) received: Received<'a>,
    pub(super) method_arn: &'a str,
    pub(super) keys: &'a ConditionKeys<'a>,
    pub(super) now: Timestamp,
    /// Cell that receives the record of the authorizer's HTTP call, for operators.
    pub(super) called: &'a OnceLock<AuthorizerCall>,
}

/// The result of an authorizer: the client's principal, and the API key that the authorizer named.
#[derive(Debug, Default)]
pub(super) struct AuthorizeResponse {
    pub(super) principal: Principal,
    pub(super) usage_identifier_key: Option<Box<str>>,
}

/// A kind of authorizer.
///
/// Contract: an answer is final. An authorizer caches answers only if its settings say so. Every wait is bounded. No
/// error text contains anything that the client sent.
pub(super) trait Authorizer: Debug + Send + Sync {
    /// Returns the kind, for records.
    fn kind(&self) -> AuthorizerKind;

    /// Returns the client's principal, or the reason why the client may not connect.
    fn authorize<'a>(&'a self, request: AuthorizeRequest<'a>) -> BoxFuture<'a, Result<AuthorizeResponse, Denial>>;

    /// Returns the route key of messages that bring a new token.
    fn refresh_route_key(&self) -> Option<&str> {
        None
    }

    /// Checks a new token of a connected client and returns the client's new principal.
    fn refresh<'a>(
        &'a self,
        _token: &'a str,
        _principal: &'a Principal,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<Principal, Denial>> {
        Box::pin(std::future::ready(Err(Denial::Unauthorized)))
    }
}
