use std::sync::Arc;

use super::arn::Arns;
use super::connections_call::{CallFacts, ConnectionsCall};
use super::credentials::{AccessKey, MANAGE_CONNECTIONS};
use super::error::IamError;
use super::policy_path::PolicyPath;
use tidegate_core::principal::IamIdentity;

/// The right of a key to make one call of `@connections`, given after the signature was checked. While the call lasts,
/// the key's policy can be evaluated for the same call in another stage.
#[derive(Debug)]
pub struct Grant {
    key: Arc<AccessKey>,
    arns: Arc<Arns>,
}

impl Grant {
    pub(super) fn new(key: Arc<AccessKey>, arns: Arc<Arns>) -> Self {
        Grant { key, arns }
    }

    /// Returns the identity of the key that signed.
    pub fn identity(&self) -> &Arc<IamIdentity> {
        &self.key.identity
    }

    /// Returns true if the key has a policy. A key without a policy may do everything.
    pub fn is_limited(&self) -> bool {
        self.key.has_policy()
    }

    /// Checks that the policy allows `call` on each of its paths.
    ///
    /// # Errors
    /// Returns [`IamError::AccessDenied`] if it does not.
    pub fn permit(&self, call: &ConnectionsCall<'_>) -> Result<(), IamError> {
        call.paths.iter().try_for_each(|path| self.check(call.api_id, call.stage, path, call.facts))
    }

    /// Checks that the policy allows the call on `path` in `stage`.
    ///
    /// # Errors
    /// Returns [`IamError::AccessDenied`] if it does not.
    pub fn check(&self, api_id: &str, stage: &str, path: &PolicyPath, facts: &CallFacts) -> Result<(), IamError> {
        let Grant { key, arns } = self;
        let (keys, method) = (facts.keys(), facts.method.as_str());
        let resource = arns.callback(api_id, stage, method, &path.escaped);
        key.authorize(MANAGE_CONNECTIONS, &resource, arns, &keys)?;
        // A statement that denies the unescaped name must keep its effect.
        match &path.plain {
            Some(plain) => {
                let resource = arns.callback(api_id, stage, method, plain);
                key.check_denied(MANAGE_CONNECTIONS, &resource, arns, &keys)
            }
            None => Ok(()),
        }
    }
}
