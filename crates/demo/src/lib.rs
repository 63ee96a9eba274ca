//! The sample chat of `tidegate demo`: a backend that is reached over real HTTP, and the page that it serves.
//!
//! The backend is an ordinary one. It uses only the contract that the gateway has with any backend: it answers Lambda
//! proxy events on `POST /`. A room is a group of the gateway. Each answer requests the joins, the leaves and the
//! messages, so the backend keeps only the names of the people in a room. `examples/` contains the same backend in
//! other languages, with the same messages.
//!
//! | endpoint | purpose |
//! | --- | --- |
//! | `POST /` | the `AWS_PROXY` integration of every route; answers `{"statusCode":200,"tidegate":{…}}` |
//! | `GET /` | the chat page |
//! | `GET /config.json?node=2` | `{"websocketUrl":…}`, the URL to which the page connects: the first gateway, or the one of this number |
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
