//! Groups, users, broadcast and `@send` of a running gateway. One file for each subject.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

#[path = "../gateway/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the harness of tests/gateway, of which this uses a part")]
mod support;

#[path = "../harness/signature.rs"]
mod signature;

mod room;

mod answers;
mod broadcast;
mod delivery;
mod groups;
mod openapi;
mod permissions;
mod rubbish;
mod send;
mod users;
