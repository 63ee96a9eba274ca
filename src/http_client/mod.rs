//! The one outbound HTTP client of the gateway: every call to a backend goes through [`HttpClient::send`].
//!
//! A [`Backend`] is an address with its own pool; integrations of the same address share it. A [`Call`] has one
//! deadline for everything: waiting for a connection, name resolution, connecting, TLS, sending, reading the answer.
//! Redirects are answers like any other. Where a call may go is looked at after name resolution, for every connection
//! ([`EgressSettings`]).
//!
//! How the pool works:
//!
//! - HTTP/1.1 connections are kept in a last-in first-out list while idle. A caller that finds none waits in a queue,
//!   first in, first out; connections are opened by the pool, not by callers, and a connection that becomes free,
//!   new or used, goes to the caller that has waited longest. A caller that gives up takes nothing with it.
//! - New connections are opened a few at a time, and a connection counts as new until its first answer: this is what
//!   keeps a burst from overrunning the listen backlog of a small server. `window.rs` has the rules.
//! - HTTP/2 is one shared connection per backend.
//! - A request is sent a second time, on another connection and by the same deadline, if it is certain that the backend
//!   has not processed it: hyper hands it back, not a byte was written to the socket meanwhile, or an HTTP/2 backend
//!   refuses the stream or goes away before it. A third time never.
//! - An idle connection is closed before the backend closes it: a request that crosses with its close is lost, since the
//!   backend may have read it. The backend says how long it waits, or the configuration does.
//!
//! Invariants: never more HTTP/1.1 sockets than the backend's maximum; a dropped call closes the HTTP/1.1 connection
//! that carries its request and nothing else; every task runs on the tracker given to [`HttpClient::new`]; the lock
//! of a pool is never held while something is spawned, aborted or dropped that could take it again.

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
