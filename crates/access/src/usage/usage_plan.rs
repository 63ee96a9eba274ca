use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::error::UsageExceeded;
use super::quota_store::{Counted, QuotaKey, QuotaStore};
use super::settings::{ApiKey, QuotaPeriod, QuotaSettings, UsagePlan};
use tidegate_core::clock::Timestamp;
use tidegate_core::limits::Throttle;
use tidegate_core::principal::Principal;
use tidegate_core::problem::Problem;
use tidegate_resources::Api;

/// The usage plans of all API keys on all stages.
#[derive(Debug, Default)]
pub struct UsagePlans {
    /// Usages by API id and stage name.
    apis: HashMap<Box<str>, HashMap<Box<str>, Arc<StageUsage>>>,
}

/// The usages of the API keys on one stage, by key id.
#[derive(Debug, Default)]
pub struct StageUsage(HashMap<Box<str>, Arc<Usage>>);

/// The limits and counts of one key under one plan, for all stages of the plan together.
#[derive(Debug)]
pub struct Usage {
    plan: Box<str>,
    api_key: Box<str>,
    throttle: Option<Throttle>,
    quota: Option<QuotaSettings>,
    quotas: Arc<dyn QuotaStore>,
    /// Key of the count of the present period.
    quota_key: ArcSwapOption<QuotaKey>,
}

impl UsagePlans {
    /// Compiles all usage plans, whose uses `quotas` counts, and adds every mistake in them to `problems`.
    pub fn compile(
        plans: &BTreeMap<String, UsagePlan>,
        keys: &BTreeMap<String, ApiKey>,
        apis: &BTreeMap<String, Api>,
        quotas: &Arc<dyn QuotaStore>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut usages: HashMap<Box<str>, HashMap<Box<str>, StageUsage>> = HashMap::new();
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
                    quotas: Arc::clone(quotas),
                    quota_key: ArcSwapOption::empty(),
                });
                for stage in &plan.api_stages {
                    let Some((api_id, stage_name)) = stage.split_once(':') else { continue };
                    let of_stage = usages.entry(api_id.into()).or_default().entry(stage_name.into()).or_default();
                    if let Some(other) = of_stage.0.insert(key.as_str().into(), Arc::clone(&usage)) {
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
        let shared = |stages: HashMap<Box<str>, StageUsage>| {
            stages.into_iter().map(|(stage, usage)| (stage, Arc::new(usage))).collect()
        };
        UsagePlans { apis: usages.into_iter().map(|(api_id, stages)| (api_id, shared(stages))).collect() }
    }

    /// Returns the usages of the API keys on a stage.
    pub fn stage(&self, api_id: &str, stage: &str) -> Arc<StageUsage> {
        self.apis.get(api_id).and_then(|stages| stages.get(stage)).map(Arc::clone).unwrap_or_default()
    }
}

impl StageUsage {
    /// Returns the usage of the key with the id `api_key`, or `None` if it has no plan for the stage.
    pub fn of(&self, api_key: &str) -> Option<&Arc<Usage>> {
        self.0.get(api_key)
    }

    /// Counts a message or a post against the usage plan of the connection's API key. A key that has lost its plan
    /// since the client connected is not limited, because keys are required only when clients connect.
    pub fn count(&self, principal: Option<&Principal>, now: Timestamp) -> Counted {
        let key = principal.and_then(|principal| principal.api_key.as_ref());
        match key.and_then(|key| self.of(&key.id)) {
            Some(usage) => usage.take(now),
            None => Counted::Now(Ok(())),
        }
    }
}

impl Usage {
    /// Counts one connect, message or post. A use that exceeds the rate is not counted against the quota.
    pub fn take(&self, now: Timestamp) -> Counted {
        if self.throttle.as_ref().is_some_and(|throttle| !throttle.admit()) {
            return Counted::Now(Err(UsageExceeded::Throttle));
        }
        match self.quota {
            Some(QuotaSettings { limit, period }) => self.quotas.take(&self.quota_key(period, now), limit),
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

    fn usage(burst: Option<u32>, limit: u64, quotas: &Arc<dyn QuotaStore>) -> Usage {
        Usage {
            plan: "basic".into(),
            api_key: "mobile".into(),
            throttle: burst.and_then(|_| Throttle::new(Some(0.001), burst)),
            quota: Some(QuotaSettings { limit, period: QuotaPeriod::Day }),
            quotas: Arc::clone(quotas),
            quota_key: ArcSwapOption::empty(),
        }
    }

    #[tokio::test]
    async fn rate_comes_before_quota_and_what_it_turns_away_is_not_counted() {
        let (store, now): (Arc<dyn QuotaStore>, _) = (Arc::new(MemoryQuotaStore::default()), Timestamp(0));
        let slow = usage(Some(1), 2, &store);
        assert_eq!(slow.take(now).await, Ok(()));
        assert_eq!(slow.take(now).await, Err(UsageExceeded::Throttle));
        let fast = usage(None, 2, &store);
        assert_eq!(fast.take(now).await, Ok(()));
        assert_eq!(fast.take(now).await, Err(UsageExceeded::Quota));
        let tomorrow = Timestamp(86_400_000);
        assert_eq!(fast.take(tomorrow).await, Ok(()));
    }
}
