//! What an operator sees: logs and metrics.

mod error_chain;
pub mod logging;
mod metrics;

pub use error_chain::chain;
pub use metrics::{Metrics, RegistryStateGauge, StageLabels};
