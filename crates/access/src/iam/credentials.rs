use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::HeaderName;
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::arn::Arns;
use super::claim::Claim;
use super::condition::ConditionKeys;
use super::connections_call::ConnectionsCall;
use super::error::{AccessDenied, IamError};
use super::grant::Grant;
use super::policy::{Decision, Policy, PolicyRequest};
use super::settings::Credential;
use super::signed_request::SignedRequest;
use super::sigv4::{Received, SignatureError};
use tidegate_core::clock::Timestamp;
use tidegate_core::principal::IamIdentity;
use tidegate_core::problem::Problem;
use tidegate_core::secret::Secret;

pub const INVOKE: &str = "execute-api:Invoke";
pub(super) const MANAGE_CONNECTIONS: &str = "execute-api:ManageConnections";

/// The keys that may sign, by access key id.
#[derive(Debug, Default)]
pub struct Credentials {
    arns: Arc<Arns>,
    keys: HashMap<Box<str>, Arc<AccessKey>>,
}

/// A key that may sign.
#[derive(Debug)]
pub struct AccessKey {
    pub identity: Arc<IamIdentity>,
    secret_access_key: Secret,
    session_token: Option<Secret>,
    expires_at: Option<Timestamp>,
    /// Policy of the key. A key without one may do everything.
    policy: Option<Policy>,
}

impl Credentials {
    /// Compiles all credentials and adds every mistake in them to `problems`.
    pub fn compile(settings: &BTreeMap<String, Credential>, arns: &Arc<Arns>, problems: &mut Vec<Problem>) -> Self {
        let mut keys: HashMap<Box<str>, Arc<AccessKey>> = HashMap::with_capacity(settings.len());
        for (name, credential) in settings {
            let policy = credential.policy_document.as_ref().map(Policy::parse).transpose();
            let policy = policy.unwrap_or_else(|error| {
                let mut problem = Problem::at(["credentials", name, "policyDocument"], error.message);
                problem.path.extend(error.path);
                problems.push(problem);
                None
            });
            let expires_at = credential.expiration.as_deref().and_then(|text| {
                let moment = moment(text);
                let message = match (moment, &credential.session_token) {
                    (None, _) => format!("`{text}` is not an RFC 3339 time; allowed: such as 2026-12-31T00:00:00Z"),
                    (Some(_), None) => "only temporary credentials expire; they have a `sessionToken`".to_owned(),
                    (Some(_), Some(_)) => return moment,
                };
                problems.push(Problem::at(["credentials", name, "expiration"], message));
                None
            });
            let identity = Arc::new(IamIdentity {
                name: name.as_str().into(),
                access_key_id: credential.access_key_id.as_str().into(),
                account_id: arns.account_id().into(),
                user_arn: arns.user(name).into(),
            });
            let key = AccessKey {
                identity,
                secret_access_key: credential.secret_access_key.clone(),
                session_token: credential.session_token.clone(),
                expires_at,
                policy,
            };
            if let Some(other) = keys.insert(credential.access_key_id.as_str().into(), Arc::new(key)) {
                problems.push(Problem::at(
                    ["credentials", name, "accessKeyId"],
                    format!("`{}` has the same accessKeyId; each must have its own", other.identity.name),
                ));
            }
        }
        Credentials { arns: Arc::clone(arns), keys }
    }

    /// Checks the signature of a request and returns the key that signed it.
    ///
    /// # Errors
    /// Returns a [`SignatureError`] if the request is not signed or its signature is not valid.
    pub fn authenticate(
        &self,
        received: Received<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Arc<AccessKey>, SignatureError> {
        self.read(received, now)?.prove(body)
    }

    /// Checks a signed call as far as possible before its body is read: the time of the signature, the key, and that
    /// the signature covers each header of `deciding`, the headers that change what the call does. If the body is not
    /// needed to check the signature, it checks the signature and the policy of the key too.
    ///
    /// # Errors
    /// Returns [`IamError::Signature`] if the call is not signed, its signature cannot be valid with any body, or the
    /// signature does not cover a header of `deciding`. Returns [`IamError::AccessDenied`] if the policy does not allow
    /// the call on one of its paths.
    pub fn claim_call<'a>(
        &self,
        received: Received<'a>,
        call: ConnectionsCall<'a>,
        deciding: impl IntoIterator<Item = &'a HeaderName>,
    ) -> Result<Claim<'a>, IamError> {
        let request = self.read(received, call.facts.time).map_err(IamError::Signature)?;
        deciding.into_iter().try_for_each(|name| request.check_signs(name)).map_err(IamError::Signature)?;
        let grant = Grant::new(Arc::clone(request.key()), Arc::clone(&self.arns));
        Claim::new(request, call, grant)
    }

    fn read<'a>(&self, received: Received<'a>, now: Timestamp) -> Result<SignedRequest<'a>, SignatureError> {
        SignedRequest::read(received, now, |access_key_id| self.keys.get(access_key_id).map(Arc::clone))
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
    u64::try_from(moment).ok().and_then(|seconds| seconds.checked_mul(1000)).map(Timestamp)
}

impl AccessKey {
    /// Checks that the key's policy allows `action` on `resource`.
    ///
    /// # Errors
    /// Returns [`IamError::AccessDenied`] if it does not.
    pub fn authorize(
        &self,
        action: &'static str,
        resource: &str,
        arns: &Arns,
        keys: &ConditionKeys<'_>,
    ) -> Result<(), IamError> {
        match self.decide(action, resource, keys) {
            Decision::Allow => Ok(()),
            Decision::ExplicitDeny => Err(self.denial(action, resource, arns, true)),
            Decision::NoAllow => Err(self.denial(action, resource, arns, false)),
        }
    }

    /// Checks that no statement of the key's policy denies `action` on `resource`. No statement has to allow it.
    ///
    /// # Errors
    /// Returns [`IamError::AccessDenied`] if a statement denies it.
    pub(super) fn check_denied(
        &self,
        action: &'static str,
        resource: &str,
        arns: &Arns,
        keys: &ConditionKeys<'_>,
    ) -> Result<(), IamError> {
        match self.decide(action, resource, keys) {
            Decision::Allow | Decision::NoAllow => Ok(()),
            Decision::ExplicitDeny => Err(self.denial(action, resource, arns, true)),
        }
    }

    pub(super) fn secret(&self) -> &str {
        self.secret_access_key.expose()
    }

    /// Returns true if `token` is the key's session token, or both have none. Tokens are compared in constant time.
    pub(super) fn has_session_token(&self, token: Option<&str>) -> bool {
        match (&self.session_token, token) {
            (None, None) => true,
            (Some(wanted), Some(found)) => wanted.expose().as_bytes().ct_eq(found.as_bytes()).into(),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Returns true if the key is a temporary credential that has expired at `now`.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Returns true if the key has a policy.
    pub(super) fn has_policy(&self) -> bool {
        self.policy.is_some()
    }

    fn denial(&self, action: &'static str, resource: &str, arns: &Arns, explicitly: bool) -> IamError {
        let user_arn = self.identity.user_arn.to_string();
        IamError::AccessDenied(AccessDenied { user_arn, action, resource: arns.masked(resource), explicitly })
    }

    /// Evaluates the key's policy.
    fn decide(&self, action: &str, resource: &str, keys: &ConditionKeys<'_>) -> Decision {
        let Some(policy) = &self.policy else { return Decision::Allow };
        let keys = ConditionKeys { user: Some((&self.identity.name, &self.identity.user_arn)), ..keys.clone() };
        policy.evaluate(&PolicyRequest { action, resource, keys: &keys })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::{HeaderMap, HeaderValue, Method};
    use serde_json::json;

    use super::*;
    use crate::iam::{CallFacts, PolicyPath};

    #[test]
    fn a_policy_that_denies_a_user_agent_denies_it_whatever_bytes_are_in_it() {
        let denied = json!({ "StringLike": { "aws:UserAgent": "*scanner*" } });
        let policy = json!({ "Statement": [
            { "Effect": "Allow", "Action": "*", "Resource": "*" },
            { "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": denied },
        ] });
        let credential = Credential {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "secret".to_owned().into(),
            session_token: None,
            expiration: None,
            policy_document: Some(policy),
        };
        let (arns, mut problems) = (Arc::new(Arns::default()), Vec::new());
        let settings = [("backend".to_owned(), credential)].into();
        let credentials = Credentials::compile(&settings, &arns, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let grant = Grant::new(Arc::clone(&credentials.keys["AKIDEXAMPLE"]), arns);
        let check = |agent: Option<&[u8]>, is_allowed: bool| {
            let mut headers = HeaderMap::new();
            if let Some(agent) = agent {
                headers.insert("user-agent", HeaderValue::from_bytes(agent).expect("a header"));
            }
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let facts = CallFacts::new(Method::POST, &headers, address, false, Timestamp(0));
            let path = PolicyPath { escaped: "/@connections/{connectionId}".into(), plain: None };
            let call = ConnectionsCall { api_id: "chat", stage: "prod", paths: &[path], facts: &facts };
            assert_eq!(grant.permit(&call).is_ok(), is_allowed, "{agent:?}");
        };
        check(None, true);
        check(Some(b"backend/1.0"), true);
        check(Some(b"scanner/1.0"), false);
        check(Some("sc\u{e4}nner scanner/1.0".as_bytes()), false);
        check(Some(b"scanner/1.0 \xff"), false);
        check(Some(b"\xe4 backend/1.0"), true);
    }
}
