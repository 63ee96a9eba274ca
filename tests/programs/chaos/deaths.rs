//! Nodes that are killed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tidegate_testing::{Answer, Crowd, EventType, Nodes, Plan, eventually};

use crate::chaos::clients::{Clients, all_told, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_2000_clients_is_killed_and_their_backend_learns_it_within_15_seconds() {
    let mut nodes = Nodes::start(Plan { lease: Duration::from_secs(5), ..Plan::default() }).await;
    let victims = Clients::connect("victim", 2000, nodes.all[0].public(), &nodes.ledger).await;
    nodes.all[0].hide();
    let crowd = Crowd::gather(40, 0, &nodes.ledger, &nodes.entrances).await;
    nodes.ledger.more_messages(40).await;
    nodes.all[0].kill().await;
    let killed = Instant::now();
    let last = all_told(&nodes.ledger, &victims.ids).await;
    println!("2000 first attempts within {:?}", last - killed);
    assert!(last - killed <= Duration::from_secs(15), "{:?}", last - killed);
    nodes.ledger.more_messages(40).await;
    let living = crowd.staying(&nodes.ledger);
    nodes.ledger.balances(&living).await;
    assert_eq!(told(&nodes.ledger), victims.ids, "exactly those");
    let sessions = crowd.leave().await;
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&HashSet::new()).await;
    nodes.ledger.pushes_arrived(&sessions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reaping_node_is_killed_midway() {
    let lease = Duration::from_secs(5);
    let plan = Plan { lease, settings: "disconnect: { concurrency: 2 }", ..Plan::default() };
    let mut nodes = Nodes::start(plan).await;
    let dead = Clients::connect("dead", 300, nodes.all[0].public(), &nodes.ledger).await;
    let one = Clients::connect("one", 50, nodes.all[1].public(), &nodes.ledger).await;
    let two = Clients::connect("two", 50, nodes.all[2].public(), &nodes.ledger).await;
    nodes.ledger.answer(|call| match call.event_type {
        EventType::Disconnect => Answer::Status(200, Duration::from_millis(50)),
        EventType::Connect | EventType::Message => Answer::OK,
    });
    nodes.all[0].kill().await;
    eventually("it is midway", async || nodes.ledger.count(EventType::Disconnect) >= 40).await;
    // Whichever has taken something over is the one that dies.
    let took = nodes.all[1].metric("tidegate_reaped_connections_total").await.unwrap_or_default();
    let (reaper, last) = if took > 0.0 { (1, 2) } else { (2, 1) };
    nodes.all[reaper].kill().await;
    let (killed, living) = if reaper == 1 { (&one, &two) } else { (&two, &one) };
    let ids: HashSet<String> = dead.ids.union(&killed.ids).cloned().collect();
    all_told(&nodes.ledger, &ids).await;
    nodes.ledger.balances(&living.ids).await;
    let line = nodes.all[last].line_with("this node has removed").await;
    assert!(line.contains("taken_over"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_are_killed_at_once_and_started_later() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let dead: Vec<String> = nodes.all.iter().map(|node| node.id().to_owned()).collect();
    let mut ids = HashSet::new();
    let mut clients = Vec::new();
    for (number, node) in nodes.all.iter().enumerate() {
        let some = Clients::connect(&format!("client{number}"), 30, node.public(), &nodes.ledger).await;
        ids.extend(some.ids.iter().cloned());
        clients.push(some);
    }
    // Some have gone before, and their backend does not know it.
    nodes.ledger.answer(|call| match call.event_type {
        EventType::Disconnect => Answer::Status(503, Duration::ZERO),
        EventType::Connect | EventType::Message => Answer::OK,
    });
    let gone = clients.remove(0).ids.clone();
    eventually("events are pending", async || told(&nodes.ledger).is_superset(&gone)).await;
    for node in &nodes.all {
        node.signal("STOP");
    }
    for node in &mut nodes.all {
        node.kill().await;
    }
    nodes.ledger.answer(|_| Answer::OK);
    for node in &mut nodes.all {
        node.start().await;
    }
    all_told(&nodes.ledger, &ids).await;
    nodes.ledger.balances(&HashSet::new()).await;
    // The last answer of the backend comes before the last record goes, and nobody buries when all have left.
    eventually("the dead are buried", async || {
        let keys = nodes.redis.keys().await;
        dead.iter().all(|id| keys.iter().filter(|key| key.contains(id)).all(|key| key.ends_with(":node")))
    })
    .await;
    for node in &mut nodes.all {
        node.stop().await;
    }
    let keys = nodes.redis.keys().await;
    assert!(keys.iter().all(|key| key.ends_with(":node")), "tombstones alone: {keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_that_is_at_a_slow_backend_when_its_node_dies_is_waited_for() {
    let mut nodes = Nodes::start(Plan { nodes: 2, lease: Duration::from_millis(1500), ..Plan::default() }).await;
    nodes.ledger.answer(|call| match call.event_type {
        EventType::Connect => Answer::Status(200, Duration::from_secs(60)),
        EventType::Message | EventType::Disconnect => Answer::OK,
    });
    let url = format!("ws://{}/prod?name=slow", nodes.all[0].public());
    let connecting = tidegate_testing::spawn(tokio_tungstenite::connect_async(url));
    eventually("the backend was asked", async || nodes.ledger.connection_of("slow").is_some()).await;
    nodes.all[0].kill().await;
    let killed = Instant::now();
    assert!(connecting.await.unwrap().is_err());
    let id = nodes.ledger.connection_of("slow").unwrap();
    let told = all_told(&nodes.ledger, &HashSet::from([id])).await;
    // The integration's timeout is 5 s, and it runs from the claim.
    assert!(told - killed >= Duration::from_secs(5), "{:?}", told - killed);
}
