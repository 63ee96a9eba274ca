//! A gateway, a server that answers as a test wants, an issuer of tokens, a client.

mod client;
mod gateway;
mod issuer;
#[path = "../../harness/redis.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
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
