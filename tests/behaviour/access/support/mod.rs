//! A gateway, a server that answers as a test wants, an issuer of tokens, a client.

mod client;
mod gateway;
mod issuer;
mod server;

pub(crate) use crate::harness::RedisServer;
pub(crate) use crate::registry::support::eventually;
pub(crate) use client::{Client, connect, raw, refused};
pub(crate) use gateway::TestGateway;
pub(crate) use issuer::{Issuer, Key};
pub(crate) use server::{Answer, Server};
