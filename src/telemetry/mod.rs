//! What an operator sees: logs and metrics.

mod error_chain;
mod link_metrics;
pub mod logging;
mod metrics;

pub use error_chain::chain;
pub use link_metrics::LinkMetrics;
pub use metrics::{Metrics, RegistryStateGauge, StageLabels};
