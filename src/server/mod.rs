//! The edge: sockets and HTTP on one side, flows on the other.
//!
//! `listener.rs` accepts and owns connections, `accepting.rs` says when it cannot, `entrance.rs` is what they go through
//! before their first request (PROXY header, limits of their address, TLS). [`framing`] follows a connection from request
//! to request and `pace.rs` bounds each of its waits; `watched.rs` is the stream that both look at. `router.rs` tells what a
//! request is for, [`target`] which host it names, `upgrade.rs` turns a handshake into a session, `connections_api.rs`
//! answers backends, `request_body.rs` reads what they send, `admin.rs` answers probes, `operators.rs` people, `peer.rs` takes
//! other nodes' links, `audit.rs` writes down what was refused.

mod accepting;
mod admin;
mod audit;
mod client_address;
mod connections_api;
mod entrance;
pub mod framing;
mod listener;
mod operators;
mod pace;
mod peer;
pub mod proxy_protocol;
mod request_body;
mod router;
mod settings;
pub mod target;
mod upgrade;
mod watched;

pub use admin::Readiness;
pub use entrance::Entrance;
pub use listener::{BindError, Endpoint, Listener};
pub use settings::{ConnectionsApi, HostPattern, InternalListener, ListenerSettings, PublicListener, TrustedProxy};
