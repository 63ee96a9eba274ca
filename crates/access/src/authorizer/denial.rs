use thiserror::Error;

use super::request_authorizer::RequestAuthorizerError;
use crate::iam::IamError;
use crate::jwt::TokenError;
use crate::usage::UsageExceeded;
use tidegate_telemetry::AuthorizerOutcome;

/// The reason why a client may not connect or a backend may not make its call: one variant for each answer that AWS
/// gives. `data_plane/gateway_response.rs` turns it into that answer.
#[derive(Debug, Error)]
pub enum Denial {
    #[error("the identity source `{0}` is missing or empty")]
    MissingIdentitySource(String),
    #[error("the identity source `{0}` was sent more than once")]
    RepeatedIdentitySource(String),
    #[error("the token is not valid")]
    Token(#[source] TokenError),
    #[error("the token has none of the scopes that the route requires")]
    MissingScope,
    #[error("the authorizer answered `Unauthorized`")]
    Unauthorized,
    #[error("the authorizer's policy explicitly denies execute-api:Invoke")]
    ExplicitDeny,
    #[error("no statement of the authorizer's policy allows execute-api:Invoke on {resource}")]
    NoAllow { resource: String },
    #[error("the authorizer failed")]
    Authorizer(#[source] RequestAuthorizerError),
    #[error("the API key is missing, unknown, not enabled or has no usage plan for the stage")]
    ApiKey,
    #[error(transparent)]
    UsageExceeded(UsageExceeded),
    #[error(transparent)]
    Iam(#[from] IamError),
}

impl Denial {
    /// Returns the label value for `tidegate_connects_total` and `tidegate_pushes_total`.
    pub fn outcome(&self) -> AuthorizerOutcome {
        match self {
            Denial::MissingIdentitySource(_)
            | Denial::RepeatedIdentitySource(_)
            | Denial::Token(_)
            | Denial::Unauthorized => AuthorizerOutcome::Unauthorized,
            Denial::MissingScope | Denial::ExplicitDeny | Denial::NoAllow { .. } | Denial::ApiKey | Denial::Iam(_) => {
                AuthorizerOutcome::Forbidden
            }
            Denial::Authorizer(_) => AuthorizerOutcome::Failed,
            Denial::UsageExceeded(_) => AuthorizerOutcome::Throttled,
        }
    }

    /// Returns true if an operator has to act, because the authorizer or the issuer failed. Other denials are the
    /// caller's fault.
    pub fn needs_operator(&self) -> bool {
        match self {
            Denial::Authorizer(_) => true,
            Denial::Token(error) => error.is_issuer_fault(),
            _ => false,
        }
    }
}
