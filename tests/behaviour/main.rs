//! What the gateway does, seen from outside: whole gateways in this process, and clusters of real nodes. One folder for
//! each subject.

#[path = "../browser/mod.rs"]
mod browser;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../process/mod.rs"]
mod process;

mod access;
mod cluster;
mod gateway;
mod groups;
mod nodes;
mod observe;
mod registry;
mod shield;
