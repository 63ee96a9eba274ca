//! A gateway, a server that answers as a test wants, an issuer of tokens, a client.

mod client;
mod gateway;
mod issuer;
#[allow(dead_code, reason = "the suite of the registry uses the rest")]
#[path = "../../registry/support/server.rs"]
mod redis;
mod server;

use std::time::Duration;

pub(crate) use client::{Client, connect, raw, refused};
pub(crate) use gateway::TestGateway;
pub(crate) use issuer::{Issuer, Key};
pub(crate) use redis::RedisServer;
pub(crate) use server::{Answer, Server};

/// Waits until something is true, which it has to be soon.
#[track_caller]
pub(crate) fn eventually<F, Fut>(what: &'static str, mut check: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let caller = std::panic::Location::caller();
    async move {
        let limit = tokio::time::Instant::now() + Duration::from_secs(20);
        while !check().await {
            assert!(tokio::time::Instant::now() < limit, "{caller}: not in time: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
