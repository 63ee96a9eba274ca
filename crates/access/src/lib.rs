//! Access control: IAM, tokens, authorizers, API keys and usage plans.
//!
//! Modules are declared from low to high; a module imports only modules that are declared above it.

pub mod iam;
pub mod jwt;
pub mod usage;
pub mod authorizer;
