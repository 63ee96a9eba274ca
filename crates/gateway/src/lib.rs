//! The serving of APIs: deployments, the flows of every event, and the operations of backends.
//!
//! Modules are declared from low to high; a module imports only modules that are declared above it.

pub mod deployment;
pub mod data_plane;
