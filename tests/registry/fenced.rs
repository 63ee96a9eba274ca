//! A node that others have condemned.

use tidegate::redis_client::Call;
use tidegate::registry::record::RecordState;

use crate::support::{Node, RedisServer, connection, eventually, outbox};

#[tokio::test]
async fn a_condemned_node_closes_its_sessions_and_goes_on_under_a_new_id() {
    let server = RedisServer::start().await;
    let node = Node::start(&server).await;
    let open = node.open().await;
    let connecting = connection(&node.registry, None);
    node.registry.connect(&connecting, None);
    node.registry.record(&connecting.id).await.expect("a record");
    let session = node.registry.get_open(&open.id).expect("it is open").outbox;
    let fenced = node.id();
    let condemn = Call::command("SET", node.mirror.keys().node(fenced)).arg("dead 1");
    server.connection().await.run_one(condemn).await.expect("an answer");

    eventually("another id", || async { node.id() != fenced }).await;
    node.is("attached").await;
    assert!(!session.is_open(), "the session was told to close");
    assert!(!node.registry.open(&connecting.id, outbox()), "its client is refused");
    // The session's task ends the connection; its event is sent from here, and recorded under the new id.
    for id in [open.id, connecting.id] {
        assert!(node.registry.end(&id, tidegate::session::Closing::fenced()));
    }
    node.is_mirrored(&server).await;
    assert!(node.records(&server).await.values().all(|record| matches!(record.state, RecordState::Ended { .. })));
    assert!(server.keys().await.contains(&node.mirror.keys().node(fenced)), "the tombstone is left alone");
    let new = node.open().await;
    assert_eq!(new.id.node(), node.id());
}
