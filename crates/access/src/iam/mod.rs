//! Identity and access management: the keys that sign requests, their signatures and their policies.
//!
//! [`Credentials`] finds the key that a request names and checks the signature ([`sigv4`]). Its policy ([`policy`]) is
//! evaluated for the resource that a call acts on. For a call of `@connections`, [`Credentials::claim_call`] checks what
//! needs no body and returns a [`Claim`]. [`Claim::admit`] takes the body and returns a [`Grant`].
//!
//! Pure code: the caller passes the time.
//!
//! Invariants: nothing of a request is used before its signature is verified, except what the signature is about.
//! Anything that cannot be evaluated is refused, never ignored. No error text contains a secret or a signature.

mod arn;
mod claim;
mod condition;
mod connections_call;
mod credentials;
mod error;
mod grant;
pub mod policy;
mod policy_path;
mod settings;
mod signed_request;
pub mod sigv4;
mod wildcard;

pub use arn::Arns;
pub use claim::Claim;
pub use condition::{ConditionKeys, user_agent};
pub use connections_call::{CallFacts, ConnectionsCall};
pub use credentials::{AccessKey, Credentials, INVOKE};
pub use error::{AccessDenied, IamError};
pub use grant::Grant;
pub use policy_path::PolicyPath;
pub use settings::Credential;
pub use sigv4::{Received, SignatureError};
pub use wildcard::Wildcard;
