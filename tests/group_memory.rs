//! What being in a group costs a node, in a process of its own: its memory is what is measured.

use std::net::IpAddr;
use std::sync::Arc;

use tidegate::clock::Timestamp;
use tidegate::groups::Groups;
use tidegate::id::{ConnectionId, NodeId};
use tidegate::request_context::Connection;
use tidegate::session::Outbox;
use tidegate::topic::TopicName;

const CONNECTIONS: usize = 100_000;
const GROUPS: usize = 100;

/// Bytes of this process that are in memory.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells it");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

#[test]
fn joining_costs_less_than_100_bytes_for_each_of_100_000_connections() {
    let node = NodeId::random();
    let connections: Vec<(Arc<Connection>, Arc<Outbox>)> = (0..CONNECTIONS)
        .map(|_| {
            let connection = Connection {
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
            };
            (Arc::new(connection), Arc::new(Outbox::new(1024, Timestamp(0))))
        })
        .collect();
    let names: Vec<TopicName> =
        (0..GROUPS).map(|number| TopicName::group(&format!("room-{number}")).expect("a name")).collect();
    let groups = Groups::default();
    let before = resident_bytes();
    for (number, (connection, outbox)) in connections.iter().enumerate() {
        groups.join(connection, outbox, names[number % GROUPS].clone(), 1000).expect("it joins");
    }
    let each = (resident_bytes() - before) / CONNECTIONS;
    println!("{each} bytes for each of {CONNECTIONS} memberships in {GROUPS} groups");
    assert_eq!(groups.size().memberships, CONNECTIONS);
    assert!(each < 100, "{each}");
    connections.iter().for_each(|(connection, _)| groups.end(connection));
    assert_eq!((groups.size().topics, groups.size().memberships), (0, 0));
}
