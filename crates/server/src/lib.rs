//! The edge of the gateway: sockets and HTTP outside, flows inside.
//!
//! `listener.rs` accepts and owns connections, and `http_connection.rs` serves the requests of one. `entrance.rs` has the
//! steps before the first request of a connection: PROXY header, limits of the client's address, TLS. `router.rs` finds
//! out what a request is for, `hosts.rs` knows the allowed hosts, and `page.rs` detects requests that a web page sends.
//! `upgrade.rs` turns a WebSocket handshake into a session, and `callback_host.rs` chooses the host of its callback
//! URLs. `connections_api.rs` answers backends; operators are answered by [`tidegate_operator_api`]. `peer.rs` accepts
//! links of other nodes, and `audit.rs` logs refusals.

mod accepting;
mod audit;
mod callback_host;
mod client_address;
mod connections_api;
mod entrance;
pub mod framing;
mod hosts;
mod http_connection;
mod listener;
mod pace;
mod page;
mod peer;
pub mod proxy_protocol;
mod router;
mod settings;
pub mod target;
mod upgrade;
mod watched;

pub use entrance::ConnectionPolicy;
pub use hosts::{AllowedHosts, HostPattern};
pub use listener::{BindError, Endpoint, Listener};
pub use settings::{ConnectionsApi, InternalListener, ListenerSettings, PublicListener, TrustedProxy};
