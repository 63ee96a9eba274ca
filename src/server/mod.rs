//! The edge: sockets and HTTP on one side, flows on the other.
//!
//! `listener.rs` accepts and owns connections, `router.rs` tells what a request is for, `upgrade.rs` turns a handshake
//! into a session, `connections_api.rs` answers backends, `admin.rs` probes, `operators.rs` people, `peer.rs` takes
//! other nodes' links.

mod admin;
mod client_address;
mod connections_api;
mod listener;
mod operators;
mod peer;
mod router;
mod settings;
mod upgrade;

pub use admin::Readiness;
pub use listener::{BindError, Endpoint, Listener};
pub use settings::{ConnectionsApi, InternalListener, ListenerSettings, PublicListener, TrustedProxy};
