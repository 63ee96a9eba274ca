//! Bounds: sizes and times ([`quota`]) and rates ([`throttle`]).

pub mod quota;
pub mod throttle;

pub use quota::{KeepAliveSettings, LimitSettings};
pub use throttle::Throttle;
