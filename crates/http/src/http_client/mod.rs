//! The one outbound HTTP client of the gateway: every call to a backend goes through [`HttpClient::send`].
//!
//! A [`Backend`] is an address with its own connection pool; integrations with the same address share it. A [`Call`]
//! has one deadline for everything: waiting for a connection, name resolution, connecting, TLS, sending and reading the
//! answer. Redirects are not followed: they are answers like any other. Every connection is checked against the egress
//! rules after name resolution ([`EgressSettings`]).
//!
//! The pool works like this:
//!
//! - Idle HTTP/1.1 connections are kept in a last-in, first-out list. A caller that finds none waits in a first-in,
//!   first-out queue. The pool opens connections, not the callers, and each connection that becomes free, new or used,
//!   goes to the caller that has waited longest. A caller that gives up while it waits closes no connection.
//! - New connections are opened a few at a time, and a connection counts as new until its first answer. This keeps a
//!   burst from overrunning the listen backlog of a small server. `window.rs` has the rules.
//! - With HTTP/2 there is one shared connection per backend.
//! - A request is sent a second time, on another connection and with the same deadline, if it is certain that the
//!   backend has not processed it: hyper hands it back, no byte was written to the socket meanwhile, or an HTTP/2
//!   backend refuses the stream or sends a GOAWAY that excludes it. A request is never sent a third time.
//! - An idle connection is closed before the backend closes it. A request that crosses with the backend's close is
//!   lost, since the backend may have read it. The idle timeout comes from the backend or from the configuration.
//!
//! Invariants: there are never more HTTP/1.1 sockets than the backend's maximum; a dropped call closes the HTTP/1.1
//! connection that carries its request and nothing else; every task runs on the tracker given to [`HttpClient::new`];
//! the lock of a pool is never held while something is spawned, aborted or dropped that could take the lock again.

mod backend;
mod call;
mod client;
mod connect;
mod egress;
mod exchange;
mod keeper;
mod lease;
mod patient_timer;
mod pool;
mod resolver;
mod window;
mod writes;
#[cfg(test)]
mod tests;

pub use backend::{Backend, Counts};
pub use call::{Answer, Call, CallError};
pub use client::{BackendError, BackendOptions, HttpClient};
pub use connect::ConnectError;
pub use egress::{EgressError, EgressSettings, Network};
pub use resolver::{Lookup, Resolver, SystemResolver};
