use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::authorize::{AuthorizeRequest, AuthorizeResponse, Authorizer};
use super::denial::Denial;
use crate::iam::{Arns, Credentials, INVOKE, IamError};
use tidegate_core::principal::Principal;
use tidegate_telemetry::AuthorizerKind;

/// The `AWS_IAM` authorizer of a `$connect` route.
#[derive(Debug)]
pub(super) struct IamAuthorizer {
    pub(super) credentials: Arc<Credentials>,
    pub(super) arns: Arc<Arns>,
}

impl Authorizer for IamAuthorizer {
    fn kind(&self) -> AuthorizerKind {
        AuthorizerKind::Iam
    }

    fn authorize<'a>(&'a self, request: AuthorizeRequest<'a>) -> BoxFuture<'a, Result<AuthorizeResponse, Denial>> {
        let AuthorizeRequest { received, method_arn, keys, now, .. } = request;
        let key = self.credentials.authenticate(received, &[], now).map_err(IamError::Signature);
        let allowed = key.and_then(|key| {
            key.authorize(INVOKE, method_arn, &self.arns, keys)?;
            Ok(key)
        });
        Box::pin(ready(allowed.map_err(Denial::from).map(|key| {
            let principal = Principal { iam: Some(Arc::clone(&key.identity)), ..Principal::default() };
            AuthorizeResponse { principal, usage_identifier_key: None }
        })))
    }
}
