//! tidegate: a self-hosted, WebSocket-first messaging gateway with the contract of Amazon API Gateway's WebSocket APIs.
//!
//! The gateway holds clients' connections, so that a backend can stay plain stateless HTTP. A client's connect, its
//! messages and its disconnect become HTTP calls to the backend, and the backend pushes with
//! `POST /{stage}/@connections/{id}`.
//!
//! This file is the map. The workspace has these crates, from low to high; a crate imports only crates above it in this
//! list, and inside a crate a module imports only modules that its `lib.rs` declares before it.
//!
//! | crate | purpose |
//! | --- | --- |
//! | `core` | ids, times, secrets, limits; what a connection and an event are |
//! | `resources` | API Gateway's resources, as a configuration writes them |
//! | `language` | selection expressions and parameter mappings |
//! | `http` | TLS, sockets, signatures, the HTTP client |
//! | `telemetry` | metrics, logs, access logs, traces |
//! | `connections` | the engine: sessions, groups, the registry, Redis, the cluster; it knows no API |
//! | `integration` | calls of backends, with one file for each type of integration |
//! | `access` | IAM, tokens, authorizers, API keys and usage plans |
//! | `gateway` | deployments, the flows of every event, the operations of backends |
//! | `operator_api` | health, metrics, state, nodes and connections |
//! | `server` | listeners, routing of requests, upgrades |
//! | `demo` | the sample chat |
//! | this package | the configuration file, and the assembly of a node (`app`) |
//!
//! ```text
//! client   server/listener (tls, limits) -> router -> upgrade -> data_plane/websocket/connect (authorizer, integration)
//!            -> 101
//!            -> session_loop: session/socket -> message (expression -> integration -> reply) -> session/outbox
//!            -> disconnect (registry, disconnect/queue, integration)
//! backend  server/connections_api -> data_plane/management/handle (iam, operation) -> post_to_connection -> registry
//!            -> session/outbox -> socket
//!            of another node, by the id: delivery/forward -> cluster/link -> there: answer_call -> registry -> session/outbox -> socket
//!          for many: data_plane/management/handle -> data_plane/delivery/fan_out -> groups (members) -> session/outbox of each -> socket
//!            and once to each other node: ask -> cluster/link -> there: answer_request -> fan_out
//! ```
//!
//! Invariants:
//!
//! - A connection has one owner, and only its session's task writes to its socket.
//! - `$disconnect` has one event id, computed from the connection id, from the first attempt to the last. It is sent
//!   after `$connect` was answered and after the last dispatch of the connection has ended, and its entry leaves the
//!   registry when the backend has answered.
//! - A call that was forwarded to the owner of its connection is never forwarded again.
//! - One event uses one [`tidegate_gateway::data_plane::Live`] configuration from start to end.
//! - No lock and no map reference lives across an await.
//! - Every task is spawned on [`tidegate_core::lifecycle::Lifecycle`], and every queue, body, wait and retry has a named bound.

pub mod config;
pub mod app;

#[cfg(test)]
mod house_tests;
