//! Memory that members of groups cost a node. A process of its own, because its memory is measured.

use std::sync::Arc;

use tidegate_connections::groups::Groups;
use tidegate_connections::session::Outbox;
use tidegate_core::clock::Timestamp;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::request_context::Connection;
use tidegate_core::topic::TopicName;
use tidegate_testing::resident_bytes;

const CONNECTIONS: usize = 100_000;
const GROUPS: usize = 100;

#[test]
fn joining_costs_less_than_100_bytes_for_each_of_100_000_connections() {
    let node = NodeId::random();
    let connections: Vec<(Arc<Connection>, Arc<Outbox>)> = (0..CONNECTIONS)
        .map(|_| (Arc::new(Connection::sample(ConnectionId::random(node))), Arc::new(Outbox::new(1024, Timestamp(0)))))
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
