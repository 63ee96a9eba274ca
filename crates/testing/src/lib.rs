//! The harness of tidegate's tests: real sockets, real processes, a real Redis. Nothing is simulated but the people.
//!
//! - A gateway in the test's process: [`Settings`] or a text starts a [`TestGateway`]; a [`TestCluster`] has several, linked.
//! - A gateway as its own process: [`Tidegate`], and [`Nodes`] with Redis, proxies between them and a [`Ledger`] as backend.
//! - A registry with Redis and without sockets: [`RegistryNode`].
//! - Clients: a [`TestClient`] speaks WebSocket, a [`RawClient`] says anything at all, a [`Crowd`] chats and comes back.
//! - Backends: a [`TestBackend`] records each call and answers as a test scripts it. The [`Ledger`] judges what it was told.
//! - Beside them: [`RedisServer`], [`TestProxy`], [`Relay`], [`Issuer`] of tokens, [`Authority`] for certificates, [`Browser`],
//!   any [`Process`].
//!
//! To wait is to await an event, or [`eventually`] where nothing announces it. Both have one limit, [`LIMIT`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod authority;
mod backend;
mod browser;
mod client;
mod cluster;
mod crowd;
mod gateway;
mod http;
mod issuer;
mod ledger;
mod memory;
mod nodes;
mod process;
mod proxy;
mod raw;
mod redis;
mod registry_node;
mod relay;
mod reply;
mod settings;
mod signature;
mod visitor;
mod wait;

pub use authority::{Authority, Issued};
pub use backend::{Call, LAST, TestBackend};
pub use browser::Browser;
pub use client::{TestClient, connect, refused};
pub use cluster::{Caller, KEY_SECRET, LEASE, SECRET, TestCluster, TestNode};
pub use crowd::{Crowd, Session};
pub use gateway::TestGateway;
pub use http::{HttpClient, HttpResponse, http};
pub use issuer::{Issuer, Key};
pub use ledger::{Answer, Entry, EventType, Ledger, Push};
pub use memory::resident_bytes;
pub use nodes::{Entrance, Entrances, Node, Nodes, Plan};
pub use process::{
    Lines, Process, Tidegate, address, exists, root, run, run_tidegate, run_with, tidegate, tidegate_path,
};
pub use proxy::{Mode, TestProxy};
pub use raw::{RawClient, RawFrame, connect_from, connect_narrow, connect_tls, frame, handshake, raw, raw_on};
pub use redis::{RedisServer, free_port};
pub use registry_node::{BROWSER, REGISTRY_LEASE, RegistryNode, RegistryNodeOptions, connection, outbox};
pub use relay::{Impostor, Relay};
pub use reply::{Gate, Reply};
pub use settings::Settings;
pub use signature::signed;
pub use visitor::Visitor;
pub use wait::{LIMIT, eventually, pass, spawn, within};
