//! JSON Web Tokens: parsing, verification, and the keys of their issuers.
//!
//! `token.rs` is pure code. `issuer.rs` fetches keys by OpenID Connect discovery and caches them; [`Issuers`] outlives a
//! reload.
//!
//! Invariant: no claim is used before the signature, the issuer, the audience and the time are verified. No error text
//! contains a token.

mod issuer;
mod key_set;
mod token;

pub use issuer::{Issuer, IssuerError, Issuers};
pub use token::{Claims, Expected, TokenError, Unverified};
