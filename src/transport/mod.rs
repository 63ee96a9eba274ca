//! A connection to a peer, and what its kernel knows of the bytes on it.
//!
//! A gateway that has written bytes does not know that they have left: megabytes may lie in the kernel, and the question
//! whether a peer is there lies behind them. [`Traffic`] says how far the peer's TCP has come, and a [`Watch`] judges by two
//! looks at it whether bytes still move.
//!
//! A look costs some system calls, so it is taken when a peer is about to be given up, never for a message. Linux answers
//! it; elsewhere, and where a sandbox forbids `AF_NETLINK` sockets, [`Connection::traffic`] is `None` and callers have
//! nothing but the bytes that they wrote and read themselves.

mod patience;
#[cfg(target_os = "linux")]
mod sock_diag;
mod traffic;
mod watch;

pub use patience::Patience;
pub use traffic::{Connection, Ends, Traffic};
pub use watch::{LOOKS, Moved, Watch};
