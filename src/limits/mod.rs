//! Bounds: sizes and times ([`quota`]) and rates ([`throttle`] for what everybody shares, [`Bucket`] for what one client
//! has, [`Addresses`] for what all clients of one address have together).
//!
//! Every bound is of this node alone, as everything here is in its memory.

mod address;
mod bucket;
pub mod quota;
pub mod throttle;

pub use address::{ADDRESSES_MAX, Addresses, Admission, Slot, network_of};
pub use bucket::Bucket;
pub use quota::{AddressLimitSettings, ConnectionLimitSettings, KeepAliveSettings, LimitSettings, cut_header};
pub use throttle::{Throttle, ThrottleSettings};
