//! The load balancer of deploy/compose.yaml, as it is configured there, before real nodes.

use http::Method;
use tidegate_testing::{Crowd, Entrance, Entrances, Nodes, Plan, Process, eventually, free_port};

/// The configuration with real addresses in place of Docker's names.
fn configuration(nodes: &Nodes, balancer: Entrance) -> String {
    let mut text = include_str!("../../../deploy/compose/haproxy.cfg").to_owned();
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    };
    for (number, node) in nodes.all.iter().enumerate() {
        let (name, check) = (format!("node-{}", number + 1), node.internal().port());
        replace(&format!(" {name}:8080"), &format!(" {} check port {check}", node.public()));
        replace(&format!(" {name}:8081"), &format!(" {} check port {check}", node.internal()));
    }
    replace("bind :8080", &format!("bind {}", balancer.public));
    replace("bind :8081", &format!("bind {}", balancer.internal));
    replace("check port 8081", "");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_the_load_balancer_move_to_other_nodes_when_theirs_goes_down() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let local = || std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let balancer = Entrance { public: local(), internal: local() };
    let file = tempfile::NamedTempFile::with_suffix(".cfg").unwrap();
    std::fs::write(file.path(), configuration(&nodes, balancer)).unwrap();
    let _haproxy = Process::start("/usr/sbin/haproxy", &["-f", file.path().to_str().unwrap()], &[]);
    let entrances = Entrances::default();
    entrances.open(balancer);
    let crowd = Crowd::gather(60, 20, &nodes.ledger, &entrances).await;
    for node in &nodes.all {
        // Those who come and go make it so sooner or later.
        let open = async || node.metric("tidegate_connections_open").await.is_some_and(|open| open > 0.0);
        eventually("every node has clients", open).await;
    }
    nodes.all[0].stop().await;
    nodes.ledger.more_messages(100).await;
    eventually("@connections answers through the load balancer", async || {
        let known = nodes.ledger.connection_of("client-0").unwrap();
        nodes.ledger.call(balancer.internal, Method::GET, &known, "").await == Some(200)
    })
    .await;
    let sessions = crowd.leave().await;
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&Default::default()).await;
    nodes.ledger.pushes_arrived(&sessions);
    assert!(sessions.iter().all(|session| session.left || session.code == Some(1001)));
    nodes.stop().await;
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "all have left");
}
