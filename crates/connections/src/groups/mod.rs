//! The groups and users of this node's connections, and the sending of one message to all members.
//!
//! - [`Groups`] holds the members of every group and every user ([`tidegate_core::topic::Topic`]). A connection itself holds
//!   the list of what it is in, so that it leaves without a search when it ends.
//! - [`Changes`] are the groups and users whose members have changed, for the task that writes the group index.
//! - [`FanOut`] queues one frame for many sockets, and learns what becomes of each.
//! - [`PushMessage`] is a message that a backend wants to send, with its [`Audience`].
//! - [`Actions`] are the requests of a backend in its answer to an event.
//!
//! Invariants: a group exists while it has members; a connection that is over is in nothing and joins nothing; the lock
//! of a connection is taken before that of a group, and no lock is held while a frame is queued.

mod actions;
mod audience;
mod changes;
mod fan_out;
mod members;
mod message;
#[cfg(test)]
mod model_tests;
mod store;

pub use actions::{Actions, InvalidActions};
pub use audience::{Audience, Except};
pub use changes::Changes;
pub use fan_out::{FanOut, PushCounts};
pub use members::GroupMember;
pub use message::{InvalidMessage, MESSAGES_MAX, MessageLimits, PushMessage};
pub use store::{Groups, JoinRefused, Size};
