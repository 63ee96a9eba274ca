//! Bounds: sizes and times ([`quota`]), and rates ([`throttle`] for what everybody shares, [`Bucket`] for one client,
//! and [`Addresses`] for all clients of one address together).
//!
//! Every bound is of this node alone, because everything here is in its memory.

mod address;
mod bucket;
pub mod quota;
pub mod throttle;

pub use address::{ADDRESSES_MAX, Addresses, Admission, Slot, network_of};
pub use bucket::Bucket;
pub use quota::{
    AddressLimitSettings, ConnectionLimitSettings, KeepAliveSettings, LimitSettings, cut_forwarded_for, cut_header,
};
pub use throttle::{Throttle, ThrottleSettings};
