//! The table of nodes that each node has by way of Redis.

use tidegate_connections::cluster::Standing;
use tidegate_connections::cluster::link::PROTOCOL;
use tidegate_connections::redis_client::NodeKey;
use tidegate_core::id::NodeId;
use tidegate_testing::{REGISTRY_LEASE, RedisServer, RegistryNode, RegistryNodeOptions, eventually};
use tokio::time::Instant;

#[tokio::test]
async fn nodes_find_each_other_and_forget_who_has_left() {
    let server = RedisServer::start().await;
    let first = RegistryNode::start(&server).await;
    let second = RegistryNode::launch(RegistryNodeOptions {
        advertise: "127.0.0.1:2".to_owned(),
        ..RegistryNodeOptions::new(&server)
    });
    second.is("attached").await;
    let standing = |of: NodeId| first.membership.standing(&of, REGISTRY_LEASE);
    assert!(matches!(standing(second.id()), Standing::Unknown { .. }));
    // A push for a node that nobody has heard of asks Redis at once.
    let asked = Instant::now();
    assert!(first.membership.refresh().await);
    assert!(asked.elapsed() < REGISTRY_LEASE / 3, "{:?}", asked.elapsed());
    let Standing::Known(member) = standing(second.id()) else { panic!("it is known") };
    assert_eq!((&*member.advertise, member.lease_alive, member.protocol), ("127.0.0.1:2", true, PROTOCOL));
    assert!(matches!(member.key, NodeKey::Live { .. }));

    second.leave().await;
    assert_eq!(second.state().name(), "left");
    assert!(first.membership.refresh().await);
    assert!(matches!(standing(second.id()), Standing::Known(_)), "not sure yet");
    eventually("it is gone for good", async || standing(second.id()) == Standing::Gone).await;
    first.leave().await;
    assert_eq!(server.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_node_that_leaves_connections_behind_is_dead_and_its_records_stay() {
    let server = RedisServer::start().await;
    let first = RegistryNode::start(&server).await;
    let second = RegistryNode::start(&server).await;
    let connection = second.open().await;
    second.leave().await;
    assert!(first.membership.refresh().await);
    assert_eq!(first.membership.standing(&second.id(), REGISTRY_LEASE), Standing::Gone);
    assert!(second.records(&server).await.contains_key(&connection.id));
    assert!(server.keys().await.contains(&"t:nodes".to_owned()));
}

#[tokio::test]
async fn a_killed_node_is_known_without_a_lease() {
    let server = RedisServer::start().await;
    let first = RegistryNode::start(&server).await;
    let second = RegistryNode::start(&server).await;
    first.membership.refresh().await;
    second.kill().await;
    eventually("its lease lapses", async || {
        match first.membership.standing(&second.id(), REGISTRY_LEASE) {
            Standing::Known(member) => !member.lease_alive,
            // One heartbeat later it is condemned, which a busy machine may see first.
            Standing::Gone => true,
            Standing::Unknown { .. } => false,
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_node_is_certain_only_after_a_while_and_never_while_redis_is_away() {
    let mut server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let stranger = NodeId::random();
    assert!(node.membership.refresh().await);
    assert_eq!(node.membership.standing(&stranger, REGISTRY_LEASE), Standing::Unknown { settled: false });
    eventually("it is settled", async || {
        node.membership.standing(&stranger, REGISTRY_LEASE) == Standing::Unknown { settled: true }
    })
    .await;
    server.kill();
    node.is("detached").await;
    assert!(!node.membership.refresh().await);
    assert_eq!(node.membership.standing(&stranger, REGISTRY_LEASE), Standing::Unknown { settled: false });
}

#[tokio::test]
async fn refreshes_are_shared() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let asked = Instant::now();
    let refreshes = (0..500).map(|_| node.membership.refresh());
    assert!(futures_util::future::join_all(refreshes).await.into_iter().all(|refreshed| refreshed));
    assert!(asked.elapsed() < REGISTRY_LEASE / 3, "{:?}", asked.elapsed());
}
