//! The edge: sockets and HTTP on one side, flows on the other.
//!
//! `listener.rs` accepts and owns connections, `entrance.rs` is what they go through before their first request (PROXY
//! header, limits of their address, TLS), `router.rs` tells what a request is for, `hosts.rs` which Hosts are answered
//! for, `page.rs` what a web page sends, `upgrade.rs` turns a handshake into a session, `callback_host.rs` says where
//! its callback URLs lead, `connections_api.rs` answers backends, `admin.rs` probes, `operators.rs` people, `peer.rs`
//! takes other nodes' links, `audit.rs` writes down what was refused.

mod accepting;
mod admin;
mod audit;
mod callback_host;
mod client_address;
mod connections_api;
mod entrance;
pub mod framing;
mod hosts;
mod listener;
mod operators;
mod pace;
mod page;
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
pub use hosts::{AllowedHosts, HostPattern};
pub use listener::{BindError, Endpoint, Listener};
pub use settings::{ConnectionsApi, InternalListener, ListenerSettings, PublicListener, TrustedProxy};
