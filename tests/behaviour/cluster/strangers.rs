//! Strangers at the peer port who take places and say nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_http::tls::PeerTlsSettings;
use tidegate_testing::{Authority, SECRET, TestCluster, TestNode, connect_from, eventually};
use tokio::io::AsyncReadExt as _;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

/// The lease: strangers may take so long for a handshake as any.
const LEASE: Duration = Duration::from_secs(30);

/// Opens about 450 connections a second until `stop`, from the address of the nodes and from another, and says nothing.
async fn flood(to: SocketAddr, stop: CancellationToken) {
    let (mut ticks, mut strangers) = (interval(Duration::from_millis(20)), Vec::new());
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for number in 0..9 {
            let from = if number % 3 == 0 { "127.0.0.1" } else { "127.0.0.2" };
            strangers.push(connect_from(from, to).await.unwrap());
        }
    }
}

async fn is_refused(node: &TestNode, reason: &str) {
    let refused = format!("tidegate_link_refusals_total{{reason=\"{reason}\"}}");
    eventually(&refused, async || node.metrics().await.contains(&refused)).await;
}

/// Nodes get in while strangers flood the one that they dial.
async fn nodes_get_in(tls: impl Fn(&str) -> Option<PeerTlsSettings>) {
    let cluster = TestCluster::start_apart(0).await;
    let flooded = cluster.start_node_as(SECRET, tls("flooded"), LEASE).await;
    let address = flooded.gateway.peer_address().unwrap();
    let stop = CancellationToken::new();
    let flood = cluster.tasks.spawn(flood(address, stop.clone()));
    is_refused(&flooded, "busy").await;
    let mut nodes = Vec::new();
    for number in 0..4 {
        let node = cluster.start_node_as(SECRET, tls(&number.to_string()), LEASE).await;
        // The flooded one knows of nobody: it does not dial.
        node.knows([flooded.member()]);
        nodes.push(node);
    }
    for node in &nodes {
        eventually("linked", async || node.is_linked(flooded.id()) && flooded.is_linked(node.id())).await;
    }
    stop.cancel();
    flood.await.unwrap();
}

#[tokio::test]
async fn silent_strangers_keep_no_node_out() {
    nodes_get_in(|_| None).await;
}

#[tokio::test]
async fn silent_strangers_keep_no_node_out_with_tls() {
    let authority = Authority::new("nodes");
    nodes_get_in(|name| Some(authority.issue_to_node(name, "127.0.0.1"))).await;
}

#[tokio::test]
async fn whoever_says_nothing_is_cut_off_long_before_the_lease_is_over() {
    let (cluster, authority) = (TestCluster::start_apart(0).await, Authority::new("nodes"));
    for tls in [None, Some(authority.issue_to_node("a", "127.0.0.1"))] {
        let node = cluster.start_node_as(SECRET, tls, LEASE).await;
        let mut silent = connect_from("127.0.0.2", node.gateway.peer_address().unwrap()).await.unwrap();
        // 1.5 s, on a machine that may be busy.
        let mut answer = Vec::new();
        let end = timeout(Duration::from_secs(4), silent.read_to_end(&mut answer)).await;
        assert!(end.is_ok() && answer.len() < 16, "{end:?} {answer:?}");
        is_refused(&node, "timeout").await;
    }
}
