//! Who is in which group and who is on which connection, as far as this node's own connections go, and how one message
//! goes to all of them.
//!
//! - [`Groups`] holds the members of every group and every user ([`crate::topic::Topic`]); a connection itself holds
//!   what it is in, so that it leaves without a search when it ends.
//! - [`Changes`] are the groups and users whose members have changed, for whoever tells others.
//! - [`FanOut`] queues one frame for many sockets and learns what becomes of each.
//! - [`Message`] is what a backend wants to be sent, and to whom ([`Audience`]).
//! - [`Actions`] are what a backend asks for in its answer to an event.
//! - [`Ask`] is what nodes ask of each other: each answers for its own connections.
//!
//! Invariants: a group exists while it has members; a connection that is over is in nothing and joins nothing; the lock
//! of a connection is taken before that of a group, and no lock is held while a frame is queued.

mod actions;
mod ask;
mod audience;
mod changes;
mod fan_out;
mod members;
mod message;
#[cfg(test)]
mod model_tests;
mod store;

pub use actions::{Actions, InvalidActions};
pub use ask::{Ask, Changed, Listed, MalformedAsk, Names, Pushed};
pub use audience::{Audience, Except};
pub use changes::Changes;
pub use fan_out::{Counts, FanOut};
pub use members::Member;
pub use message::{InvalidMessage, MESSAGES_MAX, Message, MessageLimits};
pub use store::{Groups, JoinRefused, Size};
