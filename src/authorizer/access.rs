use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::api_key_source::ApiKeySource;
use super::authorize::{AuthorizeRequest, AuthorizeResponse, Authorizer};
use super::denial::Denial;
use crate::clock::Timestamp;
use crate::error_chain::chain;
use crate::http_client::HttpClient;
use crate::iam::{Arns, ConditionKeys, Credentials, IamError, Received, user_agent};
use crate::integration::Handshake;
use crate::jwt::Issuers;
use crate::principal::Principal;
use crate::request_context::RequestContext;
use crate::telemetry::{AuthorizerOutcome, AuthorizerRecord};
use crate::usage::{ApiKeys, Counted, MemoryQuotaStore, QuotaStore, UsagePlans};

/// The access rules of one configuration: who may connect, and who may call `@connections`. A reload replaces them as a
/// whole.
#[derive(Debug)]
pub struct Access {
    pub(super) arns: Arc<Arns>,
    pub credentials: Arc<Credentials>,
    pub(super) api_keys: ApiKeys,
    pub(super) usage_plans: UsagePlans,
    pub(super) gates: HashMap<Box<str>, ApiGates>,
    pub(super) quotas: Arc<dyn QuotaStore>,
}

/// The parts that outlive a reload: the HTTP client for authorizers, the issuers with their keys, the counts of quotas.
#[derive(Clone, Debug)]
pub struct Mechanisms {
    pub http_client: HttpClient,
    pub issuers: Issuers,
    pub quotas: Arc<dyn QuotaStore>,
}

/// The requirements of each stage of an API for a client that connects.
#[derive(Debug, Default)]
pub(super) struct ApiGates {
    pub(super) stages: HashMap<Box<str>, StageAccess>,
}

/// The requirements of one stage for a client that connects.
#[derive(Debug)]
pub(super) struct StageAccess {
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
    /// The client's request as it was received.
    pub received: Received<'a>,
}

impl Default for Access {
    fn default() -> Self {
        Access {
            arns: Arc::default(),
            credentials: Arc::default(),
            api_keys: ApiKeys::default(),
            usage_plans: UsagePlans::default(),
            gates: HashMap::new(),
            quotas: Arc::new(MemoryQuotaStore::default()),
        }
    }
}

impl Access {
    /// Returns true if the stage requires an authorizer or an API key.
    pub fn asks(&self, api_id: &str, stage: &str) -> bool {
        self.gate(api_id, stage).is_some_and(|gate| gate.authorizer.is_some() || gate.api_key.is_some())
    }

    /// Checks whether a client may connect, and returns its principal; `None` if the stage requires nothing. Stores the
    /// authorizer's decision in `record`.
    ///
    /// 1. authorizer  2. API key  3. usage plan
    ///
    /// # Errors
    /// Returns the [`Denial`] of the authorizer, [`Denial::ApiKey`] if there is no API key with a usage plan for the
    /// stage, or [`Denial::UsageExceeded`] if that plan's rate or quota is exceeded.
    pub async fn admit(
        &self,
        client: Client<'_>,
        now: Timestamp,
        record: &mut Option<AuthorizerRecord>,
    ) -> Result<Option<Arc<Principal>>, Denial> {
        let connection = client.context.connection;
        let Some(gate) = self.gate(&connection.api_id, &connection.stage) else { return Ok(None) };
        if gate.authorizer.is_none() && gate.api_key.is_none() {
            return Ok(None);
        }
        let AuthorizeResponse { mut principal, usage_identifier_key } = match &gate.authorizer {
            Some(authorizer) => {
                let method_arn = self.arns.connect(&connection.api_id, &connection.stage);
                // From the request, because the connection keeps only the beginning of the header.
                let user_agent = user_agent(client.received.headers);
                let keys = ConditionKeys {
                    source_ip: connection.source_ip,
                    user_agent: user_agent.as_deref(),
                    secure_transport: connection.secure,
                    now,
                    user: None,
                };
                let Client { context, stage_variables, handshake, received } = client;
                let method_arn = &method_arn;
                let (keys, called, started) = (&keys, OnceLock::new(), Instant::now());
                let request = AuthorizeRequest {
                    context,
                    stage_variables,
                    handshake,
                    received,
                    method_arn,
                    keys,
                    now,
                    called: &called,
                };
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
                result?
            }
            None => AuthorizeResponse::default(),
        };
        if let Some(source) = gate.api_key {
            let value = source.value(client.handshake, usage_identifier_key.as_deref()).ok_or(Denial::ApiKey)?;
            let key = self.api_keys.find(value).ok_or(Denial::ApiKey)?;
            let usage = self.usage_plans.usage(&connection.api_id, &connection.stage, &key.id).ok_or(Denial::ApiKey)?;
            usage.take(&*self.quotas, now).await.map_err(Denial::UsageExceeded)?;
            principal.api_key = Some(Arc::clone(key));
        }
        Ok(Some(Arc::new(principal)))
    }

    /// Counts a message or a post against the usage plan of the connection's API key. A key that has lost its plan
    /// since the client connected is not limited, because keys are required only when clients connect.
    pub fn count(&self, principal: Option<&Principal>, api_id: &str, stage: &str, now: Timestamp) -> Counted {
        let key = principal.and_then(|principal| principal.api_key.as_ref());
        match key.and_then(|key| self.usage_plans.usage(api_id, stage, &key.id)) {
            Some(usage) => usage.take(&*self.quotas, now),
            None => Counted::Now(Ok(())),
        }
    }

    /// Adds the value of the API key to a principal that was read from a record, because records hold only the key's
    /// id. A key that is no longer configured gets no value.
    pub fn complete(&self, principal: Arc<Principal>) -> Arc<Principal> {
        self.api_keys.complete(principal)
    }

    /// Returns true if a message with `route_key` brings a new token.
    pub fn is_refresh(&self, api_id: &str, stage: &str, route_key: &str) -> bool {
        self.refreshing(api_id, stage).is_some_and(|authorizer| authorizer.refresh_route_key() == Some(route_key))
    }

    /// Checks the new token of a connected client and returns its new principal.
    ///
    /// # Errors
    /// Returns [`Denial::Token`] if the token is not valid or has another subject, [`Denial::MissingScope`] if it lacks
    /// a required scope, and [`Denial::Unauthorized`] if the stage does not refresh tokens. The client keeps
    /// `principal`.
    pub async fn refresh(
        &self,
        api_id: &str,
        stage: &str,
        principal: Option<&Principal>,
        token: &str,
        now: Timestamp,
    ) -> Result<Principal, Denial> {
        match (self.refreshing(api_id, stage), principal) {
            (Some(authorizer), Some(principal)) => authorizer.refresh(token, principal, now).await,
            _ => Err(Denial::Unauthorized),
        }
    }

    fn refreshing(&self, api_id: &str, stage: &str) -> Option<&Arc<dyn Authorizer>> {
        self.gate(api_id, stage)?.authorizer.as_ref()
    }

    fn gate(&self, api_id: &str, stage: &str) -> Option<&StageAccess> {
        self.gates.get(api_id)?.stages.get(stage)
    }
}
