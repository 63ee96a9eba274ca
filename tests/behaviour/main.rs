//! Behaviour of the gateway, seen from outside: whole gateways in this process, and clusters of real nodes. One folder for
//! each subject.

mod access;
mod cluster;
mod gateway;
mod groups;
mod nodes;
mod observe;
mod registry;
mod shield;
