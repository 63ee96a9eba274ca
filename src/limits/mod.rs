//! Bounds: sizes and times ([`quota`]) and rates ([`throttle`]).

pub mod quota;

pub use quota::{KeepAliveSettings, LimitSettings};
