//! Bounds of sizes and times ([`quota`]), of rates ([`throttle`] for all clients together, [`Bucket`] for one client,
//! [`Addresses`] for all clients of one address), of the pages of listings ([`PageLimit`]), and of what all callers of the process share: files ([`ClientFiles`])
//! and memory for bodies ([`Bodies`]).
//!
//! Every bound applies to this node alone, because all its state is in this node's memory.

mod address;
mod bodies;
mod bucket;
mod files;
mod page_limit;
pub mod quota;
pub mod throttle;

pub use address::{ADDRESSES_MAX, Addresses, Admission, Slot, network_of};
pub use bodies::{Bodies, BodyBytes, HeldBody, UNVERIFIED_BODIES_MAX_BYTES, VERIFIED_BODIES_MAX_BYTES};
pub use bucket::Bucket;
pub use files::{ClientFile, ClientFiles};
pub use page_limit::PageLimit;
pub use quota::{
    AddressLimitSettings, ConnectionLimitSettings, KeepAliveSettings, LimitSettings, cut_forwarded_for, cut_header,
};
pub use throttle::{Throttle, ThrottleLevel, ThrottleSettings};
