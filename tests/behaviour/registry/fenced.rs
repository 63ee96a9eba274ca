//! A node that others have condemned.

use tidegate_connections::redis_client::{RedisCommand, read};
use tidegate_connections::registry::record::RecordState;
use tidegate_testing::{RedisServer, RegistryNode, connection, eventually, outbox};

/// Writes a tombstone for a node, of its own registration or of another.
async fn condemn(server: &RedisServer, node: &RegistryNode, own_epoch: bool) {
    let (redis, key) = (server.connection().await, node.replica.keys().node(node.id()));
    let live: String =
        read(redis.run_one(RedisCommand::new("GET", key.clone())).await.expect("an answer")).expect("text");
    let dead = if own_epoch { live.replace("live", "dead") } else { "dead 0".to_owned() };
    redis.run_one(RedisCommand::new("SET", key).arg(dead)).await.expect("an answer");
}

#[tokio::test]
async fn a_condemned_node_closes_its_sessions_and_goes_on_under_a_new_id() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let open = node.open().await;
    let connecting = connection(&node.registry, None);
    node.registry.connect(&connecting, None);
    node.registry.record(&connecting.id).await.expect("a record");
    let session = node.registry.get_open(&open.id).expect("it is open").outbox;
    let fenced = node.id();
    condemn(&server, &node, false).await;

    eventually("another id", async || node.id() != fenced).await;
    node.is("attached").await;
    assert!(!session.is_open(), "the session was told to close");
    assert!(!node.registry.open(&connecting.id, outbox()), "its client is refused");
    // The tombstone does not say that others have the records: the events are sent from here, recorded under the new id.
    for id in [open.id, connecting.id] {
        assert!(node.registry.end(&id, tidegate_connections::session::Closing::fenced()));
    }
    node.is_replicated(&server).await;
    assert!(node.records(&server).await.values().all(|record| matches!(record.state, RecordState::Ended { .. })));
    assert!(server.keys().await.contains(&node.replica.keys().node(fenced)), "the tombstone is left alone");
    let new = node.open().await;
    assert_eq!(new.id.node(), node.id());
}

#[tokio::test]
async fn a_condemned_node_leaves_to_others_what_they_have_and_keeps_what_nobody_knows() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let recorded = [node.open().await, node.open().await];
    let sessions = recorded.each_ref().map(|open| node.registry.get_open(&open.id).expect("it is open").outbox);
    assert!(node.registry.end(&recorded[1].id, tidegate_connections::session::Closing::lost()));
    let unknown = connection(&node.registry, None);
    node.registry.connect(&unknown, None);
    let fenced = node.id();
    condemn(&server, &node, true).await;

    eventually("another id", async || node.id() != fenced).await;
    node.is("attached").await;
    assert!(!sessions[0].is_open());
    assert!(node.registry.get_open(&recorded[0].id).is_none());
    assert!(node.registry.get_ended(&unknown.id).is_none(), "its `$connect` is under way");
    assert!(node.registry.end(&unknown.id, tidegate_connections::session::Closing::fenced()));
    assert_eq!((node.registry.live(), node.registry.all()), (0, vec![unknown.id]));
    node.is_replicated(&server).await;
}
