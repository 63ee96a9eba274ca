use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use super::arn::Arns;
use super::condition::ConditionKeys;
use super::connections_call::ConnectionsCall;
use super::credentials::{AccessKey, MANAGE_CONNECTIONS};
use super::error::IamError;
use super::policy_path::PolicyPath;
use crate::clock::Timestamp;
use crate::principal::IamIdentity;

/// The right of a key to make one call of `@connections`, given after the signature was checked. While the call lasts,
/// the key's policy can be evaluated for the same call in another stage.
#[derive(Debug)]
pub struct Grant {
    pub(super) signer: Arc<AccessKey>,
    pub(super) arns: Arc<Arns>,
    pub(super) method: Method,
    pub(super) source_ip: IpAddr,
    pub(super) secure: bool,
    pub(super) now: Timestamp,
}

impl Grant {
    /// Returns the identity of the key that signed.
    pub fn identity(&self) -> &Arc<IamIdentity> {
        &self.signer.identity
    }

    /// Returns true if the key has a policy. A key without a policy may do everything.
    pub fn is_limited(&self) -> bool {
        self.signer.has_policy()
    }

    /// Checks that the policy allows `call` on each of its paths.
    ///
    /// # Errors
    /// Returns [`IamError::AccessDenied`] if it does not.
    pub fn permit(&self, call: &ConnectionsCall<'_>) -> Result<(), IamError> {
        let user_agent = call.received.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        call.paths.iter().try_for_each(|path| self.check(call.api_id, call.stage, path, user_agent))
    }

    /// Checks that the policy allows the call on `path` in `stage`.
    ///
    /// # Errors
    /// Returns [`IamError::AccessDenied`] if it does not.
    pub fn check(
        &self,
        api_id: &str,
        stage: &str,
        path: &PolicyPath,
        user_agent: Option<&str>,
    ) -> Result<(), IamError> {
        let Grant { signer, arns, method, source_ip, secure, now } = self;
        let keys =
            ConditionKeys { source_ip: *source_ip, user_agent, secure_transport: *secure, now: *now, user: None };
        let resource = arns.callback(api_id, stage, method.as_str(), &path.escaped);
        signer.authorize(MANAGE_CONNECTIONS, &resource, arns, &keys)?;
        // A statement that denies the unescaped name must keep its effect.
        match &path.plain {
            Some(plain) => signer.check_denied(
                MANAGE_CONNECTIONS,
                &arns.callback(api_id, stage, method.as_str(), plain),
                arns,
                &keys,
            ),
            None => Ok(()),
        }
    }
}
