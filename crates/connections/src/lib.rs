//! The connection engine: which client is connected where, and how bytes reach it. It knows no API.
//!
//! Modules are declared from low to high; a module imports only modules that are declared above it.

pub mod session;
pub mod groups;
pub mod redis_client;
pub mod group_index;
pub mod registry;
pub mod cluster;
