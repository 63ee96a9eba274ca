use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::iam::{Arns, Credential, Credentials};
use crate::jwt::Issuers;
use crate::usage::{ApiKey, ApiKeys, MemoryQuotaStore, QuotaStore, UsagePlan, UsagePlans};
use tidegate_core::principal::Principal;
use tidegate_core::problem::Problem;
use tidegate_http::http_client::HttpClient;
use tidegate_resources::Api;

/// The credentials, API keys and usage plans of one configuration. A reload replaces them as a whole, with the
/// deployments, which hold what their stages need of them.
#[derive(Debug, Default)]
pub struct Access {
    pub credentials: Arc<Credentials>,
    pub api_keys: ApiKeys,
    pub usage_plans: UsagePlans,
    pub(super) arns: Arc<Arns>,
}

/// The parts of a configuration that control access, apart from those of each API.
#[derive(Clone, Copy, Debug)]
pub struct AccessSettings<'a> {
    pub region: &'a str,
    pub account_id: &'a str,
    pub credentials: &'a BTreeMap<String, Credential>,
    pub api_keys: &'a BTreeMap<String, ApiKey>,
    pub usage_plans: &'a BTreeMap<String, UsagePlan>,
    /// APIs whose stages usage plans may name.
    pub apis: &'a BTreeMap<String, Api>,
}

/// The parts that outlive a reload: the HTTP client for authorizers, the issuers with their keys, the counts of quotas.
#[derive(Clone, Debug)]
pub struct Mechanisms {
    pub http_client: HttpClient,
    pub issuers: Issuers,
    pub quotas: Arc<dyn QuotaStore>,
}

impl Access {
    /// Compiles the settings and adds every mistake in them to `problems`. The counts of quotas belong to `mechanisms`,
    /// so they outlive a reload.
    pub fn compile(settings: &AccessSettings<'_>, mechanisms: &Mechanisms, problems: &mut Vec<Problem>) -> Self {
        let AccessSettings { region, account_id, credentials, api_keys, usage_plans, apis } = *settings;
        let arns = Arc::new(Arns::new(region, account_id));
        Access {
            credentials: Arc::new(Credentials::compile(credentials, &arns, problems)),
            usage_plans: UsagePlans::compile(usage_plans, api_keys, apis, &mechanisms.quotas, problems),
            api_keys: ApiKeys::compile(api_keys, problems),
            arns,
        }
    }

    /// Adds the value of the API key to a principal that was read from a record, because records hold only the key's
    /// id. A key that is no longer configured gets no value.
    pub fn complete(&self, principal: Arc<Principal>) -> Arc<Principal> {
        self.api_keys.complete(principal)
    }
}

impl Mechanisms {
    /// Creates the mechanisms of a process that counts quotas alone. Refreshes of keys run on `tasks`.
    pub fn alone(http_client: HttpClient, tasks: TaskTracker) -> Self {
        let issuers = Issuers::new(http_client.clone(), tasks);
        Mechanisms { http_client, issuers, quotas: Arc::new(MemoryQuotaStore::default()) }
    }

    /// Removes the issuers that no authorizer of `apis` names.
    pub fn retain_issuers(&self, apis: &BTreeMap<String, Api>) {
        self.issuers.retain(|url| {
            let authorizers = apis.values().flat_map(|api| api.authorizers.values());
            authorizers.filter_map(|authorizer| authorizer.jwt_configuration.as_ref()).any(|jwt| jwt.issuer == url)
        });
    }
}
