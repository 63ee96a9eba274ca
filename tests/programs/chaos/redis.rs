//! Redis away, and back with nothing.

use std::collections::HashSet;
use std::time::Duration;

use tidegate_testing::{Crowd, EventType, Nodes, Plan, pass};

use crate::chaos::clients::{Clients, all_told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_for_20_seconds_and_comes_back_empty_then_a_node_is_killed() {
    let mut nodes = Nodes::start(Plan { lease: Duration::from_secs(12), ..Plan::default() }).await;
    let victims = Clients::connect("victim", 100, nodes.all[0].public(), &nodes.ledger).await;
    nodes.all[0].hide();
    let crowd = Crowd::gather(30, 0, &nodes.ledger, &nodes.entrances).await;
    let before = crowd.staying(&nodes.ledger);
    nodes.redis.kill();
    for node in &nodes.all {
        node.readyz(200, "degraded").await;
    }
    pass(Duration::from_secs(20)).await;
    nodes.ledger.more_messages(30).await;
    nodes.redis.restart().await;
    for node in &nodes.all {
        node.readyz(200, "\"ready\"").await;
    }
    assert_eq!(nodes.ledger.count(EventType::Disconnect), 0, "nobody was given up");
    assert_eq!(crowd.staying(&nodes.ledger), before, "nobody was dropped");
    nodes.all[0].kill().await;
    all_told(&nodes.ledger, &victims.ids).await;
    nodes.ledger.more_messages(30).await;
    nodes.ledger.balances(&before).await;
    assert_eq!(crowd.staying(&nodes.ledger), before);
    let sessions = crowd.leave().await;
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&HashSet::new()).await;
    nodes.ledger.pushes_arrived(&sessions);
}
