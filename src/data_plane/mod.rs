//! The flows: what happens to one event, from the first byte to the last. The only code that joins mechanisms.
//!
//! - [`websocket`]: [`websocket::connect`] admits a client, [`websocket::serve`] runs its session, each message goes
//!   through `message.rs`, and `disconnect.rs` delivers the one `$disconnect`.
//! - [`take_over`] sends the events of connections whose node is dead.
//! - [`management`]: what backends do to connections.
//! - [`gateway_response`]: what an error looks like to whom it concerns; the only such mapping.
//!
//! Invariants: only the session's own task writes to a socket; an event uses one [`Live`] from start to end; a
//! `$disconnect` is sent after the last dispatch of its connection has ended.

mod answer_actions;
mod context;
mod disconnect_queue;
mod error;
pub mod gateway_response;
mod integration_call;
pub mod management;
mod reasons;
mod retired;
mod settings;
mod take_over;
pub mod websocket;

pub use context::{DataPlane, Live, NodeSettings};
pub use error::{ConnectError, ConnectionsApiError, MessageError, Refusal, RoutingError};
pub use settings::DisconnectSettings;
pub use take_over::take_over;
