//! The ground of tidegate: ids, times, secrets, limits, and the connection and event that everything is about.
//!
//! Modules are declared from low to high; a module imports only modules that are declared above it.

pub mod clock;
pub mod error_chain;
pub mod lock;
pub mod json;
pub mod id;
pub mod secret;
pub mod data_type;
pub mod route_key;
pub mod problem;
pub mod received_base64;
pub mod trace_context;
pub mod principal;
pub mod topic;
pub mod stage_names;
pub mod context_variable;
pub mod request_context;
pub mod limits;
pub mod lifecycle;
