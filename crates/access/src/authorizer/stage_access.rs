use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::api_key_source::ApiKeySource;
use super::authorize::{AuthorizeRequest, AuthorizeResponse, Authorizer};
use super::denial::Denial;
use crate::iam::{ConditionKeys, IamError, Received, user_agent};
use crate::usage::{ApiKeys, StageUsage};
use tidegate_core::clock::Timestamp;
use tidegate_core::error_chain::chain;
use tidegate_core::principal::Principal;
use tidegate_core::request_context::RequestContext;
use tidegate_integration::Handshake;
use tidegate_telemetry::{AuthorizerOutcome, AuthorizerRecord};

/// The requirements of one stage for a client that connects: an authorizer, an API key, or both.
#[derive(Debug)]
pub struct StageAccess {
    /// ARN of the `$connect` route: the resource that policies name.
    pub(super) method_arn: Box<str>,
    pub(super) authorizer: Option<Arc<dyn Authorizer>>,
    /// Place of the API key, if one is required.
    pub(super) api_key: Option<ApiKeySource>,
}

/// A client that wants to connect.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub context: &'a RequestContext<'a>,
    pub stage_variables: &'a BTreeMap<String, String>,
    pub handshake: &'a Handshake,
    /// Head of the client's request as it was received.
    pub received: Received<'a>,
}

impl StageAccess {
    /// Checks whether a client may connect, and returns its principal. Stores the authorizer's decision in `record`.
    ///
    /// 1. authorizer  2. API key  3. usage plan
    ///
    /// # Errors
    /// Returns the [`Denial`] of the authorizer, [`Denial::ApiKey`] if there is no API key with a usage plan for the
    /// stage, or [`Denial::UsageExceeded`] if that plan's rate or quota is exceeded.
    pub async fn admit(
        &self,
        client: Client<'_>,
        (api_keys, usage): (&ApiKeys, &StageUsage),
        now: Timestamp,
        record: &mut Option<AuthorizerRecord>,
    ) -> Result<Arc<Principal>, Denial> {
        let AuthorizeResponse { mut principal, usage_identifier_key } = match &self.authorizer {
            Some(authorizer) => self.authorize(&**authorizer, client, now, record).await?,
            None => AuthorizeResponse::default(),
        };
        if let Some(source) = self.api_key {
            let value = source.value(client.handshake, usage_identifier_key.as_deref()).ok_or(Denial::ApiKey)?;
            let key = api_keys.find(value).ok_or(Denial::ApiKey)?;
            let usage = usage.of(&key.id).ok_or(Denial::ApiKey)?;
            usage.take(now).await.map_err(Denial::UsageExceeded)?;
            principal.api_key = Some(Arc::clone(key));
        }
        Ok(Arc::new(principal))
    }

    async fn authorize(
        &self,
        authorizer: &dyn Authorizer,
        client: Client<'_>,
        now: Timestamp,
        record: &mut Option<AuthorizerRecord>,
    ) -> Result<AuthorizeResponse, Denial> {
        let Client { context, stage_variables, handshake, received } = client;
        // From the request, because the connection keeps only the beginning of the header.
        let user_agent = user_agent(received.headers);
        let keys = ConditionKeys {
            source_ip: context.connection.source_ip,
            user_agent: user_agent.as_deref(),
            secure_transport: context.connection.secure,
            now,
            user: None,
        };
        let method_arn = &*self.method_arn;
        let (keys, called, started) = (&keys, OnceLock::new(), Instant::now());
        let request =
            AuthorizeRequest { context, stage_variables, handshake, received, method_arn, keys, now, called: &called };
        let result = authorizer.authorize(request).await;
        let denial = result.as_ref().err();
        *record = Some(AuthorizerRecord {
            kind: authorizer.kind(),
            outcome: denial.map_or(AuthorizerOutcome::Allowed, Denial::outcome),
            error: denial.map(|denial| chain(denial).to_string()),
            is_signed: !matches!(denial, Some(Denial::Iam(IamError::Signature(_)))),
            latency: started.elapsed(),
            call: called.into_inner(),
        });
        result
    }

    /// Returns true if a message with `route_key` brings a new token.
    pub fn is_refresh(&self, route_key: &str) -> bool {
        self.authorizer.as_ref().is_some_and(|authorizer| authorizer.refresh_route_key() == Some(route_key))
    }

    /// Checks the new token of a connected client and returns its new principal.
    ///
    /// # Errors
    /// Returns [`Denial::Token`] if the token is not valid or has another subject, [`Denial::MissingScope`] if it lacks
    /// a required scope, and [`Denial::Unauthorized`] if the stage does not refresh tokens. The client keeps
    /// `principal`.
    pub async fn refresh(&self, principal: &Principal, token: &str, now: Timestamp) -> Result<Principal, Denial> {
        match &self.authorizer {
            Some(authorizer) => authorizer.refresh(token, principal, now).await,
            None => Err(Denial::Unauthorized),
        }
    }
}
