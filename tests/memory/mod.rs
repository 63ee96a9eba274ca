//! What tests of memory have in common. Each is a process of its own.

use std::net::IpAddr;

use tidegate::clock::Timestamp;
use tidegate::id::{ConnectionId, NodeId};
use tidegate::request_context::Connection;

/// Bytes of this process that are in memory.
pub(crate) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells it");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// A connection of the API `chat` that is in nothing.
pub(crate) fn connection(node: NodeId) -> Connection {
    Connection {
        id: ConnectionId::random(node),
        api_id: "chat".into(),
        stage: "prod".into(),
        connected_at: Timestamp(0),
        host: "localhost".into(),
        secure: false,
        source_ip: IpAddr::from([127, 0, 0, 1]),
        user_agent: None,
        principal: Default::default(),
        client_cert: None,
        topics: Default::default(),
    }
}
