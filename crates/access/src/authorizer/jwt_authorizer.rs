use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::authorize::{AuthorizeRequest, AuthorizeResponse, Authorizer};
use super::denial::Denial;
use super::identity_source::IdentitySource;
use crate::jwt::{Claims, Expected, Issuer, TokenError, Unverified};
use tidegate_core::clock::Timestamp;
use tidegate_core::principal::{AuthorizerContext, Expiry, Principal};
use tidegate_resources::{TokenExpiration, TokenExpirationAction};
use tidegate_telemetry::AuthorizerKind;

/// The JWT authorizer: accepts tokens of one issuer.
#[derive(Debug)]
pub(super) struct JwtAuthorizer {
    pub(super) issuer: Arc<Issuer>,
    pub(super) audience: Vec<String>,
    pub(super) identity_source: IdentitySource,
    pub(super) expiration: TokenExpiration,
    /// Route key of messages that bring a new token.
    pub(super) refresh_route_key: Option<Box<str>>,
    /// Scopes of which the token must have one. If empty, no scope is required.
    pub(super) scopes: Vec<String>,
}

impl Authorizer for JwtAuthorizer {
    fn kind(&self) -> AuthorizerKind {
        AuthorizerKind::Jwt
    }

    fn authorize<'a>(&'a self, request: AuthorizeRequest<'a>) -> BoxFuture<'a, Result<AuthorizeResponse, Denial>> {
        Box::pin(async move {
            let principal = self.connect(request).await?;
            Ok(AuthorizeResponse { principal, usage_identifier_key: None })
        })
    }

    fn refresh_route_key(&self) -> Option<&str> {
        self.refresh_route_key.as_deref()
    }

    fn refresh<'a>(
        &'a self,
        token: &'a str,
        principal: &'a Principal,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Principal, Denial>> {
        Box::pin(self.refreshed(token, principal, now))
    }
}

impl JwtAuthorizer {
    /// Checks the token that a client connects with.
    async fn connect(&self, request: AuthorizeRequest<'_>) -> Result<Principal, Denial> {
        let source = &self.identity_source;
        let value = source.value(request.context, request.stage_variables, request.handshake)?;
        let token = source.token(&value)?;
        let claims = self.verify(token, request.now).await.map_err(Denial::Token)?;
        self.principal(&claims)
    }

    /// Checks a token that comes on an open connection. It must have the same subject as the client's first token.
    async fn refreshed(&self, token: &str, principal: &Principal, now: Timestamp) -> Result<Principal, Denial> {
        let claims = self.verify(token, now).await.map_err(Denial::Token)?;
        let subject = principal.authorizer_variable("claims.sub");
        if subject.is_none() || claims.subject() != subject.as_deref() {
            return Err(Denial::Token(TokenError::Claim("sub")));
        }
        let fresh = self.principal(&claims)?;
        // The API key and the IAM identity do not come from the token, so they stay.
        Ok(Principal { api_key: principal.api_key.clone(), iam: principal.iam.clone(), ..fresh })
    }

    async fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let unverified = Unverified::read(token)?;
        let key = self.issuer.key(unverified.kid.as_deref(), unverified.algorithm).await;
        let key = key.map_err(TokenError::Issuers)?.ok_or(TokenError::UnknownKey)?;
        unverified.verify(&key, &Expected { issuer: self.issuer.url(), audience: &self.audience, now })
    }

    fn principal(&self, claims: &Claims) -> Result<Principal, Denial> {
        let (wanted, scopes) = (&self.scopes, claims.scopes());
        if !wanted.is_empty() && !wanted.iter().any(|wanted| scopes.contains(&wanted.as_str())) {
            return Err(Denial::MissingScope);
        }
        let scopes = (!wanted.is_empty()).then(|| scopes.into_iter().map(Box::from).collect());
        Ok(Principal {
            authorizer: Some(AuthorizerContext::Jwt { claims: claims.as_text(), scopes }),
            expiry: self.expiry(claims.expires_at),
            ..Principal::default()
        })
    }

    fn expiry(&self, at: Timestamp) -> Option<Expiry> {
        let notice = Duration::from_secs(self.expiration.notice_seconds.into());
        let early = u64::try_from(notice.as_millis()).unwrap_or(u64::MAX);
        let notice_at = Timestamp(at.millis().saturating_sub(early));
        match self.expiration.action {
            TokenExpirationAction::Ignore => None,
            TokenExpirationAction::Notify => Some(Expiry { at, notice_at: Some(notice_at), close_code: None }),
            TokenExpirationAction::Close => {
                let notice_at = (early > 0).then_some(notice_at);
                Some(Expiry { at, notice_at, close_code: Some(self.expiration.close_code) })
            }
        }
    }
}
