//! Delivery: how a frame or a request reaches connections, wherever they are.
//!
//! - `find.rs` finds a connection of this node, or the node that holds it.
//! - `forward.rs` sends a call for one connection to the node that holds it; `answer_call.rs` carries it out there.
//! - `fan_out.rs` sends one frame to many connections of this node and of others; `ask.rs` sends requests to other nodes
//!   and `answer_request.rs` answers them there.
//! - `reach.rs` bounds a call to the stages that its key may name.
//!
//! A forwarded call is never forwarded again.

mod answer_call;
mod answer_request;
pub(super) mod ask;
pub(super) mod fan_out;
pub(super) mod find;
pub(super) mod forward;
pub(super) mod reach;

pub use answer_call::PeerCalls;
