//! A node that is cut from Redis, from its peers, or from both.

use std::collections::HashSet;
use std::time::Duration;

use tidegate_testing::{Crowd, EventType, Mode, Nodes, Plan, eventually, pass};

use crate::chaos::clients::{Clients, all_told, told};

/// Long enough that a busy machine holds nobody up for most of it.
const LEASE: Duration = Duration::from_secs(12);

/// A node that could not renew its lease would be given up by then.
const TWO_LEASES: Duration = Duration::from_secs(24);

async fn start(nodes: usize) -> Nodes {
    Nodes::start(Plan { nodes, lease: LEASE, proxied: true, ..Plan::default() }).await
}

fn set(nodes: &Nodes, redis: &[(usize, Mode)], peers: Mode) {
    for (number, mode) in redis {
        nodes.all[*number].redis_proxy.as_ref().unwrap().set(*mode);
    }
    for node in &nodes.all {
        node.peer_proxy.as_ref().unwrap().set(peers);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_from_redis_alone_keeps_its_clients_through_a_peer() {
    for mode in [Mode::Vanish, Mode::Cut] {
        let nodes = start(2).await;
        let crowd = Crowd::gather(30, 0, &nodes.ledger, &nodes.entrances).await;
        let before = crowd.staying(&nodes.ledger);
        set(&nodes, &[(0, mode)], Mode::Pass);
        nodes.all[0].readyz(200, "degraded").await;
        pass(TWO_LEASES).await;
        nodes.ledger.more_messages(60).await;
        assert_eq!(nodes.ledger.count(EventType::Disconnect), 0);
        set(&nodes, &[(0, Mode::Pass)], Mode::Pass);
        nodes.all[0].readyz(200, "\"ready\"").await;
        assert_eq!(crowd.staying(&nodes.ledger), before, "{mode:?}");
        let sessions = crowd.leave().await;
        nodes.ledger.pushed_all().await;
        nodes.ledger.balances(&HashSet::new()).await;
        nodes.ledger.pushes_arrived(&sessions);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_cut_from_their_peers_alone_keep_their_clients() {
    let nodes = start(3).await;
    let crowd = Crowd::gather(30, 0, &nodes.ledger, &nodes.entrances).await;
    let before = crowd.staying(&nodes.ledger);
    set(&nodes, &[], Mode::Vanish);
    pass(TWO_LEASES).await;
    nodes.ledger.more_messages(30).await;
    assert_eq!(nodes.ledger.count(EventType::Disconnect), 0);
    set(&nodes, &[], Mode::Pass);
    nodes.linked().await;
    nodes.ledger.more_messages(30).await;
    assert_eq!(crowd.staying(&nodes.ledger), before);
    let sessions = crowd.leave().await;
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&HashSet::new()).await;
    nodes.ledger.pushes_arrived(&sessions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_from_redis_and_its_peers_closes_its_clients_itself() {
    let mut nodes = start(2).await;
    let cut = Clients::connect("cut", 50, nodes.all[0].public(), &nodes.ledger).await;
    let other = Clients::connect("other", 50, nodes.all[1].public(), &nodes.ledger).await;
    set(&nodes, &[(0, Mode::Vanish)], Mode::Vanish);
    let ids = cut.ids.clone();
    let codes = cut.closed().await;
    assert!(codes.iter().all(|code| *code == Some(1001)), "{codes:?}");
    nodes.all[0].line_with("this node lost its lease and no peer could renew it").await;
    // The other one reaps it meanwhile; when the cut is over both agree.
    all_told(&nodes.ledger, &ids).await;
    set(&nodes, &[(0, Mode::Pass)], Mode::Pass);
    nodes.all[0].readyz(200, "\"ready\"").await;
    nodes.linked().await;
    eventually("it serves again", async || nodes.all[0].metric("tidegate_links_open").await == Some(1.0)).await;
    let again = Clients::connect("again", 10, nodes.all[0].public(), &nodes.ledger).await;
    let living: HashSet<String> = again.ids.union(&other.ids).cloned().collect();
    nodes.ledger.balances(&living).await;
    assert_eq!(told(&nodes.ledger), ids);
}
