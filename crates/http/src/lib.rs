//! The way out: TLS, sockets, signatures and the HTTP client.
//!
//! Modules are declared from low to high; a module imports only modules that are declared above it.

pub mod tls;
pub mod transport;
pub mod signing;
pub mod http_client;
