//! Who may enter and who may push.
//!
//! The `$connect` flow asks [`Access::admit`] one question and gets a [`crate::principal::Principal`] or a [`Denial`];
//! the flow of `@connections` asks [`Access::claim_call`] before a body and [`Access::admit_call`] behind it. What a denial looks like to whom it concerns is not decided
//! here.
//!
//! - Deciding is pure: [`policy`] evaluates IAM policies, [`sigv4`] checks signatures, `token.rs` checks tokens,
//!   `authorizer_answer.rs` reads what a REQUEST authorizer says, `api_key.rs` finds keys.
//! - Around it is little I/O: `request_authorizer.rs` calls, `issuer.rs` fetches keys, `quota_store.rs` counts, and
//!   `redis_quota_store.rs` counts with all nodes.
//! - `grant.rs` is what a key that signed a call may do by it.
//! - `gate.rs` is the seam: a further kind of authorizer is one file that implements `Authorize`, and one arm in
//!   `compile.rs`.
//!
//! Invariants: nothing that a client sent is used before it is verified, and what cannot be evaluated is refused and
//! never ignored. A reload replaces [`Access`] as a whole; what outlives it is in [`Mechanisms`]. No error's text holds
//! a token, a key or a signature.
//!
//! Differs from AWS: JWT authorizers work for WebSocket APIs, answers of REQUEST authorizers may be cached, weeks of
//! quotas begin on Monday, and what a client may do by its API key counts messages and posts too.

mod access;
mod api_key;
mod arn;
mod authorizer_answer;
mod compile;
mod condition;
mod denial;
mod gate;
mod grant;
mod iam;
mod identity_source;
mod issuer;
mod jwt;
mod key_set;
pub mod policy;
mod policy_path;
mod quota_store;
mod quota_counter;
mod redis_quota_store;
mod request_authorizer;
mod settings;
pub mod sigv4;
#[cfg(test)]
mod sigv4_tests;
mod token;
#[cfg(test)]
mod token_tests;
mod usage_plan;
mod wildcard;

pub use access::{Access, Client, ConnectionsCall, Mechanisms};
pub use arn::Arns;
pub use authorizer_answer::AuthorizerAnswerError;
pub use compile::AccessSettings;
pub use condition::ConditionKeys;
pub use denial::{Denial, UsageExceeded};
pub use grant::Grant;
pub use iam::Claim;
pub use issuer::{IssuerError, Issuers};
pub use policy_path::PolicyPath;
pub use quota_store::{Counted, MemoryQuotaStore, QuotaKey, QuotaStore};
pub use redis_quota_store::RedisQuotaStore;
pub use request_authorizer::RequestAuthorizerError;
pub use settings::{ApiKey, Credential, QuotaPeriod, QuotaSettings, ThrottleSettings, UsagePlan};
pub use sigv4::{Received, SignatureError};
pub use token::TokenError;
pub use wildcard::Wildcard;
