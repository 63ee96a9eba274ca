//! The harness: real sockets, nothing simulated but the people.
//!
//! [`Settings`] starts a [`TestGateway`]: a whole node in the process, on free ports. A [`TestBackend`] records each
//! call and answers as a test scripts it. A [`TestClient`] speaks WebSocket, a [`RawClient`] says anything at all.
//! To wait is to await an event; nothing sleeps to let something happen.

mod backend;
mod client;
mod gateway;
mod http;
mod process;
mod raw;
mod relay;
mod reply;
mod wait;

pub(crate) use crate::harness::Authority;
pub(crate) use backend::{Call, TestBackend};
pub(crate) use client::TestClient;
pub(crate) use gateway::{Settings, TestGateway};
pub(crate) use http::{HttpResponse, http};
pub(crate) use process::{Process, tidegate};
pub(crate) use raw::{RawClient, connect_narrow, frame, handshake};
pub(crate) use relay::{Impostor, Relay};
pub(crate) use reply::{Gate, Reply};
pub(crate) use wait::{LIMIT, eventually, spawn, within};
