//! The flows: everything that happens to one event, from the first byte to the last. Only this code combines the other
//! rooms.
//!
//! - [`websocket`]: [`websocket::connect`] admits a client, [`websocket::serve`] runs its session, each message goes
//!   through `message.rs`.
//! - `disconnect/` delivers the one `$disconnect` of each connection, also of those whose node is dead ([`take_over`]).
//! - [`management`]: the operations of backends on connections.
//! - `delivery/`: how frames and requests reach connections, on this node and on others.
//! - [`gateway_response`]: the only mapping from errors to responses and error frames; [`response`] builds responses.
//!
//! Invariants: only the session's own task writes to a socket; an event uses one [`Live`] from start to end; a
//! `$disconnect` is sent after the last dispatch of its connection has ended.

mod answer_actions;
mod context;
mod delivery;
mod disconnect;
mod error;
pub mod gateway_response;
mod integration_call;
pub mod management;
mod reasons;
pub mod response;
pub mod websocket;

pub use context::{DataPlane, Live, NodeSettings};
pub use delivery::PeerCalls;
pub use disconnect::{DisconnectSettings, take_over};
pub use error::{ConnectError, ConnectionsApiError, MessageError, Refusal, RoutingError};
