use std::collections::HashSet;

use tidegate_testing::{Crowd, EventType, Nodes, Plan};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_restart_one_after_the_other_lose_no_push_and_no_disconnect() {
    let mut nodes = Nodes::start(Plan { settings: "drain: { graceMillis: 20000 }", ..Plan::default() }).await;
    let crowd = Crowd::gather(500, 500, &nodes.ledger, &nodes.entrances).await;
    for number in 0..nodes.all.len() {
        nodes.ledger.more_messages(500).await;
        let node = &mut nodes.all[number];
        let before = node.id().to_owned();
        node.stop().await;
        node.start().await;
        assert_ne!(node.id(), before, "one start, one node id");
        nodes.linked().await;
    }
    nodes.ledger.more_messages(500).await;
    let sessions = crowd.leave().await;
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&HashSet::new()).await;
    nodes.ledger.pushes_arrived(&sessions);
    let pushes = nodes.ledger.pushes();
    let written = pushes.iter().filter(|push| push.status == Some(200)).count();
    println!("{} connects, {} pushes, {written} written", nodes.ledger.count(EventType::Connect), pushes.len());
    assert!(written > pushes.len() / 2, "{written} of {}", pushes.len());
    let drained = sessions.iter().filter(|session| session.code == Some(1001)).count();
    assert!(drained > 0 && sessions.iter().all(|session| session.left || session.code == Some(1001)));
    for node in &mut nodes.all {
        node.stop().await;
    }
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "all have left");
}
