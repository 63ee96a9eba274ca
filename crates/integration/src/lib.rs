//! Integrations: their compiled form, the calls that they make, and the meaning of the answers.
//!
//! [`IntegrationDraft`] checks an integration of an API and [`Integration`] is its compiled form for one stage;
//! [`IntegrationClient::call`] sends one event to one integration. Each type has a file of its own: `AWS_PROXY`
//! (`aws_proxy.rs`) sends the Lambda proxy event (`proxy_event.rs`) and reads `{"statusCode":…}` ([`proxy_answer`]);
//! `HTTP_PROXY` (`http_proxy.rs`) sends the message itself (`http_request.rs`) and returns the backend's HTTP answer.
//! Each of them calls an `HttpTarget`. [`authorizer_request`] builds the request for a REQUEST authorizer.
//!
//! A client cannot send a value that a backend would take for the gateway's. These are not passed on: hop-by-hop
//! headers, headers that only a proxy or the gateway may set (`header_names.rs`), and names that the integration itself
//! sets ([`TakenNames`](tidegate_language::expression::TakenNames)).
//!
//! Differs from AWS: AWS passes those headers on. Header names in events are written as browsers write them, since HTTP
//! libraries lose the client's own casing. Every call has `x-tidegate-*` headers and `traceparent`, and events have
//! `callbackUrl`.

mod handshake;
mod payload;
mod header_names;
mod context_headers;
mod forwarded;
pub mod proxy_answer;
mod proxy_event;
mod authorizer_event;
mod call;
mod compiler;
mod http_request;
mod http_target;
mod aws_proxy;
mod http_proxy;
mod compiled;
mod compile;
mod client;

pub use authorizer_event::{AuthorizerRequest, authorizer_request};
pub use call::{Answer, Called, IntegrationError, IntegrationRequest};
pub use client::IntegrationClient;
pub use compile::IntegrationDraft;
pub use compiled::Integration;
pub use forwarded::{X_FORWARDED_FOR, X_FORWARDED_PORT, X_FORWARDED_PROTO, write_forwarded};
pub use handshake::Handshake;
pub use header_names::remove_hop_by_hop;
pub use payload::Payload;
pub use proxy_answer::ProxyAnswerError;
pub use proxy_event::proxy_event;
