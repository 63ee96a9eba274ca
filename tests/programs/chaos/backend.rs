//! A backend that is away.

use std::collections::HashSet;
use std::time::Duration;

use tidegate_testing::{EventType, Mode, Node, Nodes, Plan, eventually, pass};

use crate::chaos::clients::{Clients, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_is_away_for_a_minute_while_hundreds_leave_and_a_node_is_killed() {
    // Together the minute.
    const BEFORE_THE_DEATH: Duration = Duration::from_secs(10);
    const AFTER_THE_DEATH: Duration = Duration::from_secs(50);
    let mut nodes =
        Nodes::start(Plan { lease: Duration::from_secs(5), backend_proxied: true, ..Plan::default() }).await;
    let mut clients = Vec::new();
    for (number, node) in nodes.all.iter().enumerate() {
        clients.push(Clients::connect(&format!("client{number}"), 150, node.public(), &nodes.ledger).await);
    }
    let ids: HashSet<String> = clients.iter().flat_map(|clients| clients.ids.iter().cloned()).collect();
    let backend = nodes.backend_proxy.clone().unwrap();
    let before = [calls(&nodes.all[1]).await, calls(&nodes.all[2]).await];
    backend.set(Mode::Vanish);
    // Some of each node leave; then a node dies with clients that are open and with events that wait.
    let stay = clients.split_off(1);
    drop(clients);
    pass(BEFORE_THE_DEATH).await;
    nodes.all[0].kill().await;
    drop(stay);
    pass(AFTER_THE_DEATH).await;
    assert_eq!(nodes.ledger.count(EventType::Disconnect), 0, "it is away");
    // Few were asked meanwhile: one event alone after each pause, and not all of them at once.
    for (node, before) in nodes.all[1..].iter().zip(before) {
        let calls = calls(node).await - before;
        println!("{calls} calls while the backend was away");
        assert!(calls < 200.0, "{calls} calls");
    }
    backend.set(Mode::Pass);
    eventually("all are delivered", async || told(&nodes.ledger).is_superset(&ids)).await;
    // The first attempts went nowhere, so that the backend sees later ones; all else is in order.
    eventually("the ledger balances", async || {
        nodes.ledger.problems(&HashSet::new()).iter().all(|problem| problem.contains("attempts are"))
    })
    .await;
}

/// Calls of the backend so far, answered or not.
async fn calls(node: &Node) -> f64 {
    node.metric("tidegate_integration_duration_seconds_count").await.unwrap_or_default()
}
