//! Access control: which clients may connect, and which backends may call `@connections`.
//!
//! The `$connect` flow calls [`Access::admit`], which returns a [`crate::principal::Principal`] or a [`Denial`]. The
//! flow of `@connections` calls [`Access::claim_call`] before it reads the body, and [`Access::admit_call`] afterwards.
//! `data_plane/gateway_response.rs` turns a denial into the answer for the caller.
//!
//! - Decisions are pure code: [`policy`] evaluates IAM policies, [`sigv4`] checks signatures, `token.rs` checks tokens,
//!   `authorizer_answer.rs` parses the answer of a REQUEST authorizer, `api_key.rs` looks up API keys.
//! - Little code does I/O: `request_authorizer.rs` calls authorizers, `issuer.rs` fetches keys, `quota_store.rs` counts
//!   in this process, `redis_quota_store.rs` counts together with the other nodes.
//! - `grant.rs` holds the right of a key to make the call that it signed.
//! - `gate.rs` is the interface of authorizers: another kind of authorizer is one file that implements `Authorize`, and
//!   one arm in `compile.rs`.
//!
//! Invariants: nothing that a client sent is used before it is verified. Anything that cannot be evaluated is refused,
//! never ignored. A reload replaces [`Access`] as a whole; [`Mechanisms`] outlives it. No error text contains a token,
//! a key or a signature.
//!
//! Differs from AWS: JWT authorizers work for WebSocket APIs, answers of REQUEST authorizers may be cached, weeks of
//! quotas begin on Monday, and a usage plan also counts messages and posts.

mod access;
mod api_key;
mod api_key_source;
mod arn;
mod authorizer_answer;
mod compile;
mod condition;
mod connections_call;
mod credential;
mod denial;
mod gate;
mod grant;
mod iam;
mod iam_authorizer;
mod iam_error;
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
mod usage_exceeded;
mod usage_plan;
mod wildcard;

pub use access::{Access, Client, Mechanisms};
pub use arn::Arns;
pub use authorizer_answer::AuthorizerAnswerError;
pub use compile::AccessSettings;
pub use condition::ConditionKeys;
pub use connections_call::ConnectionsCall;
pub use credential::Credential;
pub use denial::Denial;
pub use grant::Grant;
pub use iam::Claim;
pub use iam_error::{AccessDenied, IamError};
pub use issuer::{IssuerError, Issuers};
pub use policy_path::PolicyPath;
pub use quota_store::{Counted, MemoryQuotaStore, QuotaKey, QuotaStore};
pub use redis_quota_store::RedisQuotaStore;
pub use request_authorizer::RequestAuthorizerError;
pub use settings::{ApiKey, QuotaPeriod, QuotaSettings, ThrottleSettings, UsagePlan};
pub use sigv4::{Received, SignatureError};
pub use token::TokenError;
pub use usage_exceeded::UsageExceeded;
pub use wildcard::Wildcard;
