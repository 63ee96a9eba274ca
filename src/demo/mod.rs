//! The sample chat of `tidegate demo`: a backend that is reached over real HTTP, and the page that it serves.
//!
//! The backend is an ordinary one. It knows of the gateway only what the contract gives to any backend: it answers
//! Lambda proxy events on `POST /`. A room is a group of the gateway, and each answer says who joins, who leaves and
//! what is sent to whom; so the backend keeps only the names of the people who are in a room. `examples/` contains the
//! same backend for other languages, with the same messages.
//!
//! | endpoint | is |
//! | --- | --- |
//! | `POST /` | the `AWS_PROXY` integration of every route; answers `{"statusCode":200,"tidegate":{…}}` |
//! | `GET /` | the chat page |
//! | `GET /config.json?node=2` | `{"websocketUrl":…}`, where the page connects to: the first gateway, or the one of this number |
//! | `POST /crowd` | 1000 simulated clients in one group, and one push to all of them: `{"members":…,"pushMicros":…}` (`crowd.rs`) |
//! | `GET /events` | every event and its answer as Server-Sent Events (`feed.rs`) |
//!
//! Nothing grows without a bound; each bound is a constant beside the code that keeps it.

mod answer;
mod chat;
mod crowd;
mod event;
mod feed;
mod frame;
mod server;
#[cfg(test)]
mod tests;

pub use server::{DemoError, serve};
