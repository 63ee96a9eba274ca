//! Nodes of one cluster in one process, linked over loopback; the table of members is filled by hand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faults;
mod forward;
mod groups;
mod members;
mod stages;
mod strangers;
mod tls;
