//! Nodes of one cluster in one process, linked over loopback; the table of members is filled by hand.

mod faults;
mod forward;
mod members;
mod support;
