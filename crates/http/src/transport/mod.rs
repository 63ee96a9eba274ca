//! A connection to a peer, and the kernel's knowledge about the bytes on it. A peer is here the other end of a
//! connection: a client or a node.
//!
//! Bytes that the gateway has written may not have left: megabytes may wait in the kernel, and a ping waits behind
//! them. [`Traffic`] says how many bytes the peer's TCP has acknowledged and sent, and a [`Watch`] compares two looks
//! at it to find out if bytes still move.
//!
//! A look costs some system calls, so it is taken only when a peer is about to be given up, never for a message. Only
//! Linux supports it. Elsewhere, and where a sandbox forbids `AF_NETLINK` sockets, [`Connection::traffic`] returns
//! `None`, and callers know only the bytes that they wrote and read themselves.

mod patience;
#[cfg(target_os = "linux")]
mod sock_diag;
mod traffic;
mod watch;

pub use patience::Patience;
pub use traffic::{Connection, Ends, Traffic};
pub use watch::{LOOKS, Moved, Watch};
