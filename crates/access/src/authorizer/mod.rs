//! Access control: which clients may connect, and which backends may call `@connections`.
//!
//! Each stage holds its requirements as a [`StageAccess`], compiled with the stage. The `$connect` flow calls
//! [`StageAccess::admit`], which returns a [`tidegate_core::principal::Principal`] or a [`Denial`]. [`Access`] holds what is not
//! of one stage: credentials, API keys and usage plans. The flow of `@connections` calls
//! [`crate::iam::Credentials::claim_call`] before it reads the body.
//! `data_plane/gateway_response.rs` turns a denial into the answer for the caller.
//!
//! - `authorize.rs` is the interface of authorizers: another kind of authorizer is one file that implements `Authorizer`, and
//!   one arm in `compile.rs`.
//! - `request_authorizer.rs` calls a server of the user, and `authorizer_answer.rs` parses its answer. `jwt_authorizer.rs`
//!   checks tokens ([`crate::jwt`]), `iam_authorizer.rs` signatures ([`crate::iam`]).
//!
//! Invariants: nothing that a client sent is used before it is verified. Anything that cannot be evaluated is refused,
//! never ignored. A reload replaces [`Access`] as a whole; [`Mechanisms`] outlives it. No error text contains a token,
//! a key or a signature.
//!
//! Differs from AWS: JWT authorizers work for WebSocket APIs, and answers of REQUEST authorizers may be cached.

mod access;
mod api_key_source;
mod authorize;
mod authorizer_answer;
mod compile;
mod denial;
mod iam_authorizer;
mod identity_source;
mod jwt_authorizer;
mod request_authorizer;
mod stage_access;

pub use access::{Access, AccessSettings, Mechanisms};
pub use authorizer_answer::AuthorizerAnswerError;
pub use compile::AccessDraft;
pub use denial::Denial;
pub use request_authorizer::RequestAuthorizerError;
pub use stage_access::{Client, StageAccess};
