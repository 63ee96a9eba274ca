//! A gateway, a server that answers as a test wants, an issuer of tokens, a client.

mod client;
mod gateway;
mod issuer;
#[allow(dead_code, reason = "the suite of the registry uses the rest")]
#[path = "../../registry/support/server.rs"]
mod redis;
mod server;
#[path = "../../registry/support/wait.rs"]
mod wait;

pub(crate) use client::{Client, connect, raw, refused};
pub(crate) use gateway::TestGateway;
pub(crate) use issuer::{Issuer, Key};
pub(crate) use redis::RedisServer;
pub(crate) use server::{Answer, Server};
pub(crate) use wait::eventually;
