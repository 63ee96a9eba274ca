//! The principal of a connection: everything known about its user besides the address. This is the answer of an
//! authorizer, the API key, and the credential that signed the request.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::secret::Secret;

/// The user behind a connection. A connection whose route requires no authorization has no principal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Principal {
    /// Value of `requestContext.authorizer` in every event.
    pub authorizer: Option<AuthorizerContext>,
    /// The API key that the client sent.
    pub api_key: Option<Arc<ApiKeyIdentity>>,
    /// The credential that signed the client's request.
    pub iam: Option<Arc<IamIdentity>>,
    /// Duration of the authorizer's call, in milliseconds.
    pub integration_latency: Option<u64>,
    /// Expiry of the token. Only the node that holds the connection acts on it.
    #[serde(skip)]
    pub expiry: Option<Expiry>,
}

/// The answer of an authorizer about a client, all values as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AuthorizerContext {
    /// `principalId` and `context` of a REQUEST authorizer's answer.
    Request { principal_id: Option<Box<str>>, context: Box<[(Box<str>, Box<str>)]> },
    /// The claims of a token, and its scopes if the route requires any.
    Jwt { claims: Box<[(Box<str>, Box<str>)]>, scopes: Option<Box<[Box<str>]>> },
}

/// An API key, as events show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiKeyIdentity {
    /// Name of the key in `apiKeys`.
    pub id: Box<str>,
    /// The key itself. It leaves the process only in events, and is empty in a principal that was read from a record.
    #[serde(skip)]
    pub value: Secret,
}

/// A credential, as events show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IamIdentity {
    /// Name of the credential in `credentials`.
    pub name: Box<str>,
    pub access_key_id: Box<str>,
    pub account_id: Box<str>,
    pub user_arn: Box<str>,
}

/// The expiry of a token, and the action at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub at: Timestamp,
    /// Time when the client gets a notice, if it gets one.
    pub notice_at: Option<Timestamp>,
    /// Code of the close frame, if the connection is closed.
    pub close_code: Option<u16>,
}

impl Principal {
    /// Returns the value of `$context.authorizer.{name}`.
    pub fn authorizer_variable(&self, name: &str) -> Option<Cow<'_, str>> {
        let find = |entries: &'_ [(Box<str>, Box<str>)], name: &str| -> Option<usize> {
            entries.iter().position(|(key, _)| **key == *name)
        };
        match self.authorizer.as_ref()? {
            AuthorizerContext::Request { principal_id, context } => match name {
                "principalId" => principal_id.as_deref().map(Cow::Borrowed),
                name => find(context, name).map(|at| Cow::Borrowed(&*context[at].1)),
            },
            AuthorizerContext::Jwt { claims, scopes } => {
                let name = name.strip_prefix("jwt.").unwrap_or(name);
                match name.strip_prefix("claims.") {
                    Some(claim) => find(claims, claim).map(|at| Cow::Borrowed(&*claims[at].1)),
                    None if name == "scopes" => scopes.as_ref().map(|scopes| Cow::Owned(scopes.join(" "))),
                    None => None,
                }
            }
        }
    }

    /// Returns the name of the client's user: `principalId`, or the `sub` of its token.
    pub fn user(&self) -> Option<&str> {
        match self.authorizer.as_ref()? {
            AuthorizerContext::Request { principal_id, .. } => principal_id.as_deref(),
            AuthorizerContext::Jwt { claims, .. } => {
                claims.iter().find(|(name, _)| &**name == "sub").map(|(_, value)| &**value)
            }
        }
    }

    /// Returns true if a token authorized the client.
    pub fn has_token(&self) -> bool {
        matches!(self.authorizer, Some(AuthorizerContext::Jwt { .. }))
    }

    /// Returns the value of `$context.identity.{name}` for the variables of API keys and credentials.
    pub fn identity_variable(&self, name: &str) -> Option<&str> {
        match name {
            "apiKey" => self.api_key.as_ref().map(|key| key.value.expose()).filter(|value| !value.is_empty()),
            "apiKeyId" => self.api_key.as_ref().map(|key| &*key.id),
            "accountId" => self.iam.as_ref().map(|iam| &*iam.account_id),
            "caller" | "user" => self.iam.as_ref().map(|iam| &*iam.name),
            "userArn" => self.iam.as_ref().map(|iam| &*iam.user_arn),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Box<[(Box<str>, Box<str>)]> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn what_an_authorizer_said_is_found_by_name() {
        let request =
            AuthorizerContext::Request { principal_id: Some("ann".into()), context: pairs(&[("tier", "gold")]) };
        let request = Principal { authorizer: Some(request), ..Principal::default() };
        let jwt = AuthorizerContext::Jwt {
            claims: pairs(&[("sub", "ann"), ("cognito:groups", "[a b]")]),
            scopes: Some(["chat".into(), "read".into()].into()),
        };
        let jwt = Principal { authorizer: Some(jwt), ..Principal::default() };
        let check = |principal: &Principal, name: &str, expected: Option<&str>| {
            assert_eq!(principal.authorizer_variable(name).as_deref(), expected, "{name}");
        };
        check(&request, "principalId", Some("ann"));
        check(&request, "tier", Some("gold"));
        check(&request, "missing", None);
        check(&jwt, "claims.sub", Some("ann"));
        check(&jwt, "jwt.claims.sub", Some("ann"));
        check(&jwt, "claims.cognito:groups", Some("[a b]"));
        check(&jwt, "scopes", Some("chat read"));
        check(&jwt, "sub", None);
        check(&Principal::default(), "principalId", None);
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = ApiKeyIdentity { id: "mobile".into(), value: "hunter2".to_owned().into() };
        let principal = Principal { api_key: Some(Arc::new(key)), ..Principal::default() };
        assert!(!format!("{principal:?}").contains("hunter2"));
        assert_eq!(principal.identity_variable("apiKey"), Some("hunter2"));
        assert_eq!(principal.identity_variable("apiKeyId"), Some("mobile"));
    }
}
