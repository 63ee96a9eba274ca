//! The sample chat of `tidegate demo`: a backend reached over real HTTP, and the page that it serves.
//!
//! The backend is an ordinary one. It knows of the gateway only what the contract gives to any backend: it answers
//! Lambda proxy events on `POST /` and posts to `requestContext.callbackUrl`. `examples/` holds the same backend for
//! other languages, with the same messages.
//!
//! | endpoint | is |
//! | --- | --- |
//! | `POST /` | the `AWS_PROXY` integration of every route; answers `{"statusCode":200}` |
//! | `GET /` | the chat page |
//! | `GET /config.json?node=2` | `{"websocketUrl":…}`, where the page connects to: the first gateway, or the one of this number |
//! | `POST /crowd` | 1000 simulated clients in one group, and one push to all of them: `{"members":…,"pushMicros":…}` (`crowd.rs`) |
//! | `GET /events` | every call between gateway and backend as Server-Sent Events (`feed.rs`) |
//!
//! Invariants: what one room sends reaches each of its members in one order, because it is put into the members'
//! outboxes under one lock and each outbox has one owner task (`backend.rs`). Nothing grows without a bound; each bound
//! is a constant beside the code that keeps it.

mod backend;
mod callback_client;
mod chat;
mod crowd;
mod event;
mod feed;
mod frame;
mod server;
#[cfg(test)]
mod tests;

pub use server::{DemoError, serve};
