//! Bounds: sizes and times ([`quota`]) and rates ([`throttle`] for what everybody shares, [`Bucket`] for what one client
//! has, [`Addresses`] for what all clients of one address have together), and what everybody shares of the process: files
//! ([`ClientFiles`]) and memory for bodies ([`Bodies`]).
//!
//! Every bound is of this node alone, because everything here is in its memory.

mod address;
mod bodies;
mod bucket;
mod files;
pub mod quota;
pub mod throttle;

pub use address::{ADDRESSES_MAX, Addresses, Admission, Slot, network_of};
pub use bodies::{Bodies, BodyBytes, HeldBody, UNVERIFIED_BODIES_MAX_BYTES, VERIFIED_BODIES_MAX_BYTES};
pub use bucket::Bucket;
pub use files::{ClientFile, ClientFiles};
pub use quota::{
    AddressLimitSettings, ConnectionLimitSettings, KeepAliveSettings, LimitSettings, cut_forwarded_for, cut_header,
};
pub use throttle::{Throttle, ThrottleLevel, ThrottleSettings};
