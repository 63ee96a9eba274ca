//! A process that stands still and goes on.

use std::collections::HashSet;
use std::time::Duration;

use tidegate_testing::{Crowd, EventType, Nodes, Plan, eventually, pass};

use crate::chaos::clients::{Clients, all_told, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_for_three_leases_serves_nobody_after_it_was_given_up() {
    let lease = Duration::from_secs(5);
    let mut nodes = Nodes::start(Plan { lease, ..Plan::default() }).await;
    let stopped = Clients::connect("stopped", 100, nodes.all[0].public(), &nodes.ledger).await;
    let crowd = Crowd::gather(60, 0, &nodes.ledger, &nodes.entrances).await;
    nodes.ledger.more_messages(60).await;
    let fenced = nodes.all[0].id().to_owned();
    nodes.all[0].signal("STOP");
    nodes.all[0].hide();
    pass(lease * 3).await;
    // Its clients are given up, all by one condemnation, although their sockets are still open.
    eventually("the backend knows", async || told(&nodes.ledger).is_superset(&stopped.ids)).await;
    nodes.all[0].signal("CONT");
    let codes = stopped.closed().await;
    assert!(codes.iter().all(|code| matches!(code, Some(1001) | None)), "{codes:?}");
    nodes.all[0].line_with("this node was condemned by others").await;
    nodes.all[0].readyz(200, "ready").await;
    nodes.ledger.more_messages(60).await;
    let living = crowd.staying(&nodes.ledger);
    assert!(living.iter().all(|id| !id.starts_with(&fenced)), "all of the fenced id were closed");
    nodes.ledger.balances(&living).await;
    // It serves again, under another id.
    let again = Clients::connect("again", 10, nodes.all[0].public(), &nodes.ledger).await;
    assert!(again.ids.iter().all(|id| !id.starts_with(&fenced)));
    nodes.linked().await;
    for id in &again.ids {
        assert_eq!(nodes.ledger.push(id, "hello").await.status, Some(200));
    }
    let ids = again.ids.clone();
    drop(again);
    let sessions = crowd.leave().await;
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&HashSet::new()).await;
    assert!(told(&nodes.ledger).is_superset(&ids));
    let pushed: HashSet<String> = nodes.ledger.pushes().into_iter().map(|push| push.connection_id).collect();
    assert!(pushed.len() > 10);
    // What the silent clients of this test got is not in the book of the crowd.
    let mut book = nodes.ledger.pushes();
    book.retain(|push| push.status == Some(200) && !ids.contains(&push.connection_id));
    let received: HashSet<&String> = sessions.iter().flat_map(|session| &session.received).collect();
    assert!(book.iter().all(|push| received.contains(&push.text)), "a push was answered 200 that no client got");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_shorter_than_the_gate_costs_nobody_anything() {
    let lease = Duration::from_secs(12);
    let nodes = Nodes::start(Plan { nodes: 2, lease, ..Plan::default() }).await;
    let crowd = Crowd::gather(30, 0, &nodes.ledger, &nodes.entrances).await;
    let before = crowd.staying(&nodes.ledger);
    for _ in 0..3 {
        nodes.ledger.more_messages(30).await;
        nodes.all[0].signal("STOP");
        pass(lease / 4).await;
        nodes.all[0].signal("CONT");
    }
    nodes.ledger.more_messages(60).await;
    assert_eq!(crowd.staying(&nodes.ledger), before);
    assert_eq!(nodes.ledger.count(EventType::Disconnect), 0);
    let sessions = crowd.leave().await;
    nodes.ledger.pushed_all().await;
    all_told(&nodes.ledger, &before).await;
    nodes.ledger.balances(&HashSet::new()).await;
    nodes.ledger.pushes_arrived(&sessions);
}
