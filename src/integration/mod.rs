//! Calls of backends: what they receive, and what their answers mean.
//!
//! [`IntegrationClient::call`] sends one event to one integration. `AWS_PROXY` gets the Lambda proxy event
//! (`proxy_event.rs`) and answers `{"statusCode":…}` ([`proxy_answer`]); `HTTP_PROXY` gets the message itself
//! (`http_request.rs`) and its HTTP answer is taken as it is. [`authorizer_request`] is what a REQUEST authorizer
//! gets.
//!
//! What a client sends never stands where a backend expects the gateway's word: headers of the client's connection alone,
//! headers in which only a proxy or the gateway speaks (`header_names.rs`), and names that the integration itself writes
//! ([`TakenNames`](crate::expression::TakenNames)) do not pass.
//!
//! Differs from AWS: those headers pass there; header names in events are written as browsers write them, since HTTP
//! libraries lose the client's own casing; every call carries `x-tidegate-*` headers and `traceparent`, and events have
//! `callbackUrl`.

mod authorizer_event;
mod client;
mod forwarded;
mod handshake;
mod header_names;
mod http_request;
pub mod proxy_answer;
mod proxy_event;

pub use authorizer_event::{AuthorizerRequest, authorizer_request};
pub use client::{Answer, Called, IntegrationClient, IntegrationError, Payload};
pub use forwarded::{X_FORWARDED_FOR, X_FORWARDED_PORT, X_FORWARDED_PROTO, write_forwarded};
pub use handshake::Handshake;
pub use header_names::remove_hop_by_hop;
pub use proxy_answer::ProxyAnswerError;
pub use proxy_event::proxy_event;
