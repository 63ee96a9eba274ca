use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tidegate_connections::cluster::link::PeerLink;
use tidegate_connections::cluster::{ClusterMember, NodeTable};
use tidegate_connections::redis_client::NodeKey;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_testing::{LEASE, TestCluster, eventually};
use tokio::net::TcpListener;
use tokio::time::Instant;

const UNREACHABLE: (u16, &str, bool) = (503, "ServiceUnavailableException", true);
const GONE: (u16, &str, bool) = (410, "GoneException", false);

fn id_of(node: NodeId) -> String {
    ConnectionId::random(node).to_string()
}

/// A port where nobody listens.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_node_that_nobody_has_heard_of_is_gone_only_if_that_is_certain() {
    let mut cluster = TestCluster::start_apart(3).await;
    let [unasked, unsettled, settled] = &mut cluster.nodes[..] else { panic!() };
    // Redis cannot be asked.
    unasked.refreshes.take();
    assert_eq!(unasked.http().post(&id_of(NodeId::random()), "x").await.error(), UNREACHABLE);
    // It can, but this node was not attached for long enough to be sure.
    unsettled.refreshes_to(unsettled.table([], Some(Duration::ZERO)));
    assert_eq!(unsettled.http().post(&id_of(NodeId::random()), "x").await.error(), UNREACHABLE);
    let id = id_of(NodeId::random());
    settled.refreshes_to(settled.table([], Some(LEASE * 2)));
    let http = settled.http();
    for _ in 0..2 {
        assert_eq!(http.post(&id, "x").await.error(), GONE);
        assert_eq!(http.get(&id).await.error(), GONE);
        assert_eq!(http.delete(&id).await.error(), GONE);
    }
}

#[tokio::test]
async fn a_new_node_is_found_by_the_first_push_to_it() {
    let mut cluster = TestCluster::start_apart(2).await;
    let (new, old) = cluster.nodes.split_at_mut(1);
    let (new, old) = (&new[0], &mut old[0]);
    let mut client = new.connect().await;
    old.refreshes_to(old.table([new.member()], Some(LEASE * 2)));
    assert_eq!(old.http().post(client.id(), "first").await.status, 200);
    assert_eq!(client.next_text().await, "first");
    // The other side is linked too, although its own table is empty.
    let mut client = old.connect().await;
    assert_eq!(new.http().post(client.id(), "back").await.status, 200);
    assert_eq!(client.next_text().await, "back");
}

#[tokio::test]
async fn what_the_table_says_of_a_node_without_a_link_is_answered() {
    let cluster = TestCluster::start_apart(1).await;
    let node = &cluster.nodes[0];
    let address = closed_port().await;
    let member =
        |key, lease_alive| ClusterMember { node: NodeId::random(), key, lease_alive, ..node.member_at(address) };
    let alive = member(NodeKey::Live { epoch: 1 }, true);
    let lapsed = member(NodeKey::Live { epoch: 1 }, false);
    let missing = member(NodeKey::Missing, false);
    let dead = member(NodeKey::Dead { epoch: 1 }, false);
    let departed = NodeId::random();
    node.membership.replace(NodeTable {
        departed: [(departed, Instant::now())].into(),
        ..node.table([alive.clone(), lapsed.clone(), missing.clone(), dead.clone()], Some(LEASE * 2))
    });
    let http = node.http();
    let expected = [
        (alive.node, UNREACHABLE),
        (lapsed.node, UNREACHABLE),
        (missing.node, UNREACHABLE),
        (dead.node, GONE),
        (departed, GONE),
    ];
    for (node, expected) in expected {
        let id = id_of(node);
        assert_eq!(http.post(&id, "x").await.error(), expected);
        assert_eq!(http.get(&id).await.error(), expected);
        assert_eq!(http.delete(&id).await.error(), expected);
    }
    eventually("dialled", async || {
        node.gateway.peers().iter().any(|peer| {
            peer.node == alive.node
                && matches!(&peer.link, PeerLink::NotLinked { dials_failed: 2.., error: Some(error) } if error.contains("connect"))
        })
    })
    .await;
    let peers = node.gateway.peers();
    assert!(peers.iter().any(|peer| peer.node == dead.node && peer.link == PeerLink::Gone), "{peers:?}");
}

#[tokio::test]
async fn a_condemned_node_is_gone_although_it_is_linked() {
    let cluster = TestCluster::start(2).await;
    let [condemned, node] = &cluster.nodes[..] else { panic!() };
    let client = condemned.connect().await;
    node.knows([ClusterMember { key: NodeKey::Dead { epoch: 1 }, lease_alive: false, ..condemned.member() }]);
    eventually("its link is closed", async || !node.is_linked(condemned.id())).await;
    assert_eq!(node.http().post(client.id(), "x").await.error(), GONE);
}

#[tokio::test]
async fn two_nodes_with_one_address_are_told_apart() {
    let cluster = TestCluster::start_apart(3).await;
    let [node, first, second] = &cluster.nodes[..] else { panic!() };
    let address = first.gateway.peer_address().unwrap();
    node.knows([first.member(), second.member_at(address)]);
    eventually("said", async || {
        let expected = format!("another node, {}, answers at the address", first.id());
        node.gateway.peers().iter().any(|peer| {
            let PeerLink::NotLinked { error: Some(error), .. } = &peer.link else { return false };
            peer.node == second.id() && error.contains(&expected)
        })
    })
    .await;
    eventually("linked", async || node.is_linked(first.id())).await;
    let (mut client, http) = (first.connect().await, node.http());
    assert_eq!(http.post(client.id(), "hi").await.status, 200);
    assert_eq!(client.next_text().await, "hi");
    assert_eq!(http.post(second.connect().await.id(), "x").await.error(), UNREACHABLE);
}
