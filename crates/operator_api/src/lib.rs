//! The operators' API on the internal listener: health, readiness, metrics, state and the log level (`admin.rs`), nodes and
//! connections of the cluster (`operators.rs`), and the description of the backend's API (`openapi.json`).

pub mod admin;
pub mod operators;

pub use admin::Readiness;
