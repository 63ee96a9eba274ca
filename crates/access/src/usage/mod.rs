//! API keys, usage plans and quotas.
//!
//! [`ApiKeys`] finds the key that a client sent, [`UsagePlans`] its limits on a stage. A [`QuotaStore`] counts uses:
//! `quota_store.rs` in this process, `redis_quota_store.rs` together with the other nodes.
//!
//! Differs from AWS: weeks of quotas begin on Monday, and a usage plan also counts messages and posts.

mod api_key;
mod error;
mod quota_counter;
mod quota_store;
mod redis_quota_store;
mod settings;
mod usage_plan;

pub use api_key::ApiKeys;
pub use error::UsageExceeded;
pub use quota_store::{Counted, MemoryQuotaStore, QuotaKey, QuotaStore};
pub use redis_quota_store::RedisQuotaStore;
pub use settings::{ApiKey, QuotaPeriod, QuotaSettings, ThrottleSettings, UsagePlan};
pub use usage_plan::{StageUsage, Usage, UsagePlans};
