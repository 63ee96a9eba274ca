use thiserror::Error;

/// The limit of a usage plan that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UsageExceeded {
    #[error("the usage plan's rate is exceeded")]
    Throttle,
    #[error("the usage plan's quota is exhausted")]
    Quota,
}
