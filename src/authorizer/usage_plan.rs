use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tracing::warn;

use super::denial::UsageExceeded;
use super::quota_store::{QuotaKey, QuotaStore};
use super::settings::{ApiKey, QuotaSettings, UsagePlan};
use crate::apigatewayv2::{Api, RouteSettings};
use crate::clock::Timestamp;
use crate::deployment::Problem;
use crate::limits::Throttle;

/// What each API key may do on each stage.
#[derive(Debug, Default)]
pub(super) struct UsagePlans {
    /// `apiId:stage` to the id of a key to its usage.
    stages: HashMap<String, HashMap<Box<str>, Arc<Usage>>>,
}

/// What one key may do by one plan, on all stages of the plan together.
#[derive(Debug)]
pub(super) struct Usage {
    plan: Box<str>,
    api_key: Box<str>,
    throttle: Option<Throttle>,
    quota: Option<QuotaSettings>,
}

impl UsagePlans {
    pub(super) fn compile(
        plans: &BTreeMap<String, UsagePlan>,
        keys: &BTreeMap<String, ApiKey>,
        apis: &BTreeMap<String, Api>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut stages: HashMap<String, HashMap<Box<str>, Arc<Usage>>> = HashMap::new();
        for (plan_id, plan) in plans {
            let at = |field: &'static str, index: usize, message: String| {
                let mut problem = Problem::at(["usagePlans", plan_id, field], message);
                problem.path.push(index.to_string());
                problem
            };
            for (index, stage) in plan.api_stages.iter().enumerate() {
                let found = stage.split_once(':').and_then(|(api_id, stage)| apis.get(api_id)?.stages.get(stage));
                if found.is_none() {
                    problems.push(at(
                        "apiStages",
                        index,
                        format!("there is no stage `{stage}`; allowed: `API_ID:STAGE`"),
                    ));
                }
            }
            for (index, key) in plan.api_keys.iter().enumerate() {
                if !keys.contains_key(key) {
                    problems.push(at("apiKeys", index, format!("there is no key `{key}` in `apiKeys`")));
                    continue;
                }
                let usage = Arc::new(Usage {
                    plan: plan_id.as_str().into(),
                    api_key: key.as_str().into(),
                    throttle: plan.throttle.and_then(|throttle| {
                        Throttle::new(RouteSettings::throttled(Some(throttle.rate_limit), throttle.burst_limit))
                    }),
                    quota: plan.quota,
                });
                for stage in &plan.api_stages {
                    let of_stage = stages.entry(stage.clone()).or_default();
                    if let Some(other) = of_stage.insert(key.as_str().into(), Arc::clone(&usage)) {
                        let message = if other.plan == usage.plan {
                            format!("`{key}` has this plan twice for `{stage}`")
                        } else {
                            format!("`{key}` has the plan `{}` for `{stage}` already", other.plan)
                        };
                        problems.push(at("apiKeys", index, message));
                    }
                }
            }
        }
        UsagePlans { stages }
    }

    /// What a key may do on a stage; `None` if it has no plan there.
    pub(super) fn usage(&self, api_id: &str, stage: &str, api_key: &str) -> Option<&Arc<Usage>> {
        self.stages.get(&format!("{api_id}:{stage}"))?.get(api_key)
    }
}

impl Usage {
    /// Counts one connect, message or post. What the rate turns away does not count against the quota.
    pub(super) async fn take(&self, quotas: &dyn QuotaStore, now: Timestamp) -> Result<(), UsageExceeded> {
        if self.throttle.as_ref().is_some_and(|throttle| !throttle.admit()) {
            return Err(UsageExceeded::Throttle);
        }
        let Some(QuotaSettings { limit, period }) = self.quota else { return Ok(()) };
        match quotas.take(&QuotaKey::new(&self.plan, &self.api_key, period, now), limit).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(UsageExceeded::Quota),
            Err(error) => {
                warn!(usage_plan = &*self.plan, api_key_id = &*self.api_key, %error, "a quota is not enforced");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::super::quota_store::{MemoryQuotaStore, QuotaUnavailable};
    use super::super::settings::QuotaPeriod;
    use super::*;

    #[derive(Debug)]
    struct Away;

    impl QuotaStore for Away {
        fn take<'a>(&'a self, _: &'a QuotaKey, _: u64) -> BoxFuture<'a, Result<bool, QuotaUnavailable>> {
            Box::pin(std::future::ready(Err(QuotaUnavailable)))
        }
    }

    fn usage(burst: Option<u32>, limit: u64) -> Usage {
        let settings = RouteSettings::throttled(Some(0.001), burst);
        Usage {
            plan: "basic".into(),
            api_key: "mobile".into(),
            throttle: burst.and_then(|_| Throttle::new(settings)),
            quota: Some(QuotaSettings { limit, period: QuotaPeriod::Day }),
        }
    }

    #[tokio::test]
    async fn rate_comes_before_quota_and_what_it_turns_away_is_not_counted() {
        let (store, now) = (MemoryQuotaStore::default(), Timestamp(0));
        let slow = usage(Some(1), 2);
        assert_eq!(slow.take(&store, now).await, Ok(()));
        assert_eq!(slow.take(&store, now).await, Err(UsageExceeded::Throttle));
        let fast = usage(None, 2);
        assert_eq!(fast.take(&store, now).await, Ok(()));
        assert_eq!(fast.take(&store, now).await, Err(UsageExceeded::Quota));
    }

    #[tokio::test]
    async fn without_its_store_a_quota_is_not_enforced_and_the_rate_is() {
        let usage = usage(Some(1), 1);
        assert_eq!(usage.take(&Away, Timestamp(0)).await, Ok(()));
        assert_eq!(usage.take(&Away, Timestamp(0)).await, Err(UsageExceeded::Throttle));
    }
}
