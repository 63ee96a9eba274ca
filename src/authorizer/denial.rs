use thiserror::Error;

use super::request_authorizer::RequestAuthorizerError;
use super::sigv4::SignatureError;
use super::token::TokenError;
use crate::telemetry::AuthorizerOutcome;

/// Why somebody may not enter, or may not push. One for each answer that AWS gives; what it looks like is
/// `data_plane/gateway_response.rs`'s.
#[derive(Debug, Error)]
pub enum Denial {
    #[error("the identity source `{0}` is missing or empty")]
    MissingIdentitySource(String),
    #[error("the identity source `{0}` is there more than once")]
    RepeatedIdentitySource(String),
    #[error("the token does not count")]
    Token(#[source] TokenError),
    #[error("the token has none of the scopes that the route asks for")]
    MissingScope,
    #[error("the authorizer said `Unauthorized`")]
    Unauthorized,
    #[error("the authorizer's policy denies it explicitly")]
    ExplicitDeny,
    #[error("no statement of the authorizer's policy allows execute-api:Invoke on {resource}")]
    NoAllow { resource: String },
    #[error("the authorizer failed")]
    Authorizer(#[source] RequestAuthorizerError),
    #[error("the API key is missing, unknown, not enabled or has no usage plan for the stage")]
    ApiKey,
    #[error(transparent)]
    UsageExceeded(UsageExceeded),
    #[error("the signature does not count")]
    Signature(#[source] SignatureError),
    #[error(
        "User: {user_arn} is not authorized to perform: {action} on resource: {resource} {}",
        because(*.explicitly, .action)
    )]
    Iam {
        user_arn: String,
        action: &'static str,
        /// As AWS shows it: all but the account's last four digits are hidden.
        resource: String,
        explicitly: bool,
    },
}

/// Which bound of a usage plan was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UsageExceeded {
    #[error("the usage plan's rate is exceeded")]
    Throttle,
    #[error("the usage plan's quota is used up")]
    Quota,
}

fn because(explicitly: bool, action: &str) -> String {
    if explicitly {
        "with an explicit deny in an identity-based policy".to_owned()
    } else {
        format!("because no identity-based policy allows the {action} action")
    }
}

impl Denial {
    /// The label of `tidegate_connects_total` and `tidegate_pushes_total`.
    pub fn outcome(&self) -> AuthorizerOutcome {
        match self {
            Denial::MissingIdentitySource(_)
            | Denial::RepeatedIdentitySource(_)
            | Denial::Token(_)
            | Denial::Unauthorized => AuthorizerOutcome::Unauthorized,
            Denial::MissingScope
            | Denial::ExplicitDeny
            | Denial::NoAllow { .. }
            | Denial::ApiKey
            | Denial::Signature(_)
            | Denial::Iam { .. } => AuthorizerOutcome::Forbidden,
            Denial::Authorizer(_) => AuthorizerOutcome::Failed,
            Denial::UsageExceeded(_) => AuthorizerOutcome::Throttled,
        }
    }

    /// Whether somebody on the gateway's side has to mend something; otherwise it is the caller's affair.
    pub fn is_operators(&self) -> bool {
        match self {
            Denial::Authorizer(_) => true,
            Denial::Token(error) => error.is_issuers(),
            _ => false,
        }
    }
}
