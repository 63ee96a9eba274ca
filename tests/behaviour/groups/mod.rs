//! Groups, users, broadcast and `@send` of a running gateway. One file for each subject.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod room;

mod answers;
mod broadcast;
mod delivery;
mod membership;
mod openapi;
mod permissions;
mod rubbish;
mod send;
mod users;
