use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::error::UsageExceeded;
use super::quota_store::{Counted, QuotaKey, QuotaStore};
use super::settings::{ApiKey, QuotaPeriod, QuotaSettings, UsagePlan};
use crate::apigatewayv2::Api;
use crate::clock::Timestamp;
use crate::limits::Throttle;
use crate::problem::Problem;

/// The usage plans of all API keys on all stages.
#[derive(Debug, Default)]
pub struct UsagePlans {
    /// Usages by API id, stage name and key id.
    apis: HashMap<Box<str>, HashMap<Box<str>, KeyUsages>>,
}

/// The usages of one stage by key id.
type KeyUsages = HashMap<Box<str>, Arc<Usage>>;

/// The limits and counts of one key under one plan, for all stages of the plan together.
#[derive(Debug)]
pub struct Usage {
    plan: Box<str>,
    api_key: Box<str>,
    throttle: Option<Throttle>,
    quota: Option<QuotaSettings>,
    /// Key of the count of the present period.
    quota_key: ArcSwapOption<QuotaKey>,
}

impl UsagePlans {
    pub fn compile(
        plans: &BTreeMap<String, UsagePlan>,
        keys: &BTreeMap<String, ApiKey>,
        apis: &BTreeMap<String, Api>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut usages: HashMap<Box<str>, HashMap<Box<str>, KeyUsages>> = HashMap::new();
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
                    throttle: plan
                        .throttle
                        .and_then(|throttle| Throttle::new(Some(throttle.rate_limit), throttle.burst_limit)),
                    quota: plan.quota,
                    quota_key: ArcSwapOption::empty(),
                });
                for stage in &plan.api_stages {
                    let Some((api_id, stage_name)) = stage.split_once(':') else { continue };
                    let of_stage = usages.entry(api_id.into()).or_default().entry(stage_name.into()).or_default();
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
        UsagePlans { apis: usages }
    }

    /// Returns the usage of a key on a stage, or `None` if the key has no plan there.
    pub fn usage(&self, api_id: &str, stage: &str, api_key: &str) -> Option<&Arc<Usage>> {
        self.apis.get(api_id)?.get(stage)?.get(api_key)
    }
}

impl Usage {
    /// Counts one connect, message or post. A use that exceeds the rate is not counted against the quota.
    pub fn take(&self, quotas: &dyn QuotaStore, now: Timestamp) -> Counted {
        if self.throttle.as_ref().is_some_and(|throttle| !throttle.admit()) {
            return Counted::Now(Err(UsageExceeded::Throttle));
        }
        match self.quota {
            Some(QuotaSettings { limit, period }) => quotas.take(&self.quota_key(period, now), limit),
            None => Counted::Now(Ok(())),
        }
    }

    fn quota_key(&self, period: QuotaPeriod, now: Timestamp) -> Arc<QuotaKey> {
        if let Some(key) = self.quota_key.load_full().filter(|key| key.holds(now)) {
            return key;
        }
        let key = Arc::new(QuotaKey::new(&self.plan, &self.api_key, period, now));
        self.quota_key.store(Some(Arc::clone(&key)));
        key
    }
}

#[cfg(test)]
mod tests {
    use super::super::quota_store::MemoryQuotaStore;
    use super::*;

    fn usage(burst: Option<u32>, limit: u64) -> Usage {
        Usage {
            plan: "basic".into(),
            api_key: "mobile".into(),
            throttle: burst.and_then(|_| Throttle::new(Some(0.001), burst)),
            quota: Some(QuotaSettings { limit, period: QuotaPeriod::Day }),
            quota_key: ArcSwapOption::empty(),
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
        let tomorrow = Timestamp(86_400_000);
        assert_eq!(fast.take(&store, tomorrow).await, Ok(()));
    }
}
