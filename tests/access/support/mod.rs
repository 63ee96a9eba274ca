//! A gateway, a server that answers as a test wants, an issuer of tokens, a client.

mod client;
mod gateway;
mod issuer;
mod server;

pub(crate) use client::{Client, connect, raw, refused};
pub(crate) use gateway::TestGateway;
pub(crate) use issuer::{Issuer, Key};
pub(crate) use server::{Answer, Server};
