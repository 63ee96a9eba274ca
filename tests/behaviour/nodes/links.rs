//! Links between nodes that stop, and peers that hang: no lie is told, nobody else is disturbed, and it passes.

use std::time::Duration;

use http::Method;
use tidegate_testing::{Crowd, Mode, Nodes, Plan, Visitor, eventually, pass};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn across_a_cut_between_all_nodes_pushes_are_503_and_all_else_goes_on() {
    let mut nodes = Nodes::start(Plan { proxied: true, ..Plan::default() }).await;
    let crowd = Crowd::gather(60, 0, &nodes.ledger, &nodes.entrances).await;
    let [here, there, _] = &nodes.all[..] else { panic!() };
    let visitor = Visitor::enter(there.public(), "visitor", &nodes.ledger).await;
    for mode in [Mode::Cut, Mode::Hang, Mode::Cut] {
        nodes.set(|node| &node.peer_proxy, mode);
        eventually("the links are over", async || here.metric("tidegate_links_open").await == Some(0.0)).await;
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let far = nodes.ledger.call(here.internal(), method, &visitor.id, "lost").await;
            assert_eq!(far, Some(503), "{mode:?}");
        }
        let near = nodes.ledger.call(there.internal(), Method::GET, &visitor.id, "").await;
        assert_eq!(near, Some(200), "its own node serves it on");
        assert_eq!(here.get("/readyz").await.0, 200);
        nodes.set(|node| &node.peer_proxy, Mode::Pass);
        nodes.linked().await;
        assert_eq!(nodes.ledger.call(here.internal(), Method::GET, &visitor.id, "").await, Some(200));
    }
    assert_eq!(nodes.ledger.push(&visitor.id, "back").await.status, Some(200));
    let visit = visitor.leave().await;
    assert_eq!(visit.received.len(), 1, "nothing that was answered 503 arrives");
    nodes.ledger.holds_alive(&crowd.staying(&nodes.ledger));
    let mut sessions = crowd.leave().await;
    assert!(sessions.iter().all(|session| session.left), "a client was dropped");
    sessions.push(visit);
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&Default::default()).await;
    nodes.ledger.pushes_arrived(&sessions);
    nodes.stop().await;
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "all have left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stops_for_less_than_its_lease_holds_up_its_own_clients_alone() {
    const STOPS_FOR: Duration = Duration::from_secs(2);
    // It is given up no sooner than 2/3 of this after its last heartbeat.
    const LEASE: Duration = Duration::from_secs(6);
    let mut nodes = Nodes::start(Plan { lease: LEASE, ..Plan::default() }).await;
    let crowd = Crowd::gather(60, 0, &nodes.ledger, &nodes.entrances).await;
    let [hangs, here, there] = &nodes.all[..] else { panic!() };
    let frozen = Visitor::enter(hangs.public(), "frozen", &nodes.ledger).await;
    let mut lively = Visitor::enter(there.public(), "lively", &nodes.ledger).await;
    hangs.signal("STOP");
    let wakes = async {
        pass(STOPS_FOR).await;
        hangs.signal("CONT");
    };
    let held = nodes.ledger.call(here.internal(), Method::POST, &frozen.id, "held");
    let others = async {
        for number in 0..100 {
            let status = nodes.ledger.call(here.internal(), Method::POST, &lively.id, &number.to_string()).await;
            assert_eq!(status, Some(200));
            assert_eq!(lively.next_text().await, number.to_string());
        }
    };
    let (held, (), ()) = tokio::join!(held, others, wakes);
    assert!(matches!(held, Some(200 | 424 | 503)), "{held:?}");
    nodes.linked().await;
    assert_eq!(nodes.ledger.call(here.internal(), Method::POST, &frozen.id, "again").await, Some(200));
    let received = frozen.leave().await.received;
    assert!(received == ["held", "again"] || (received == ["again"] && held != Some(200)), "{held:?} {received:?}");
    lively.leave().await;
    nodes.ledger.holds_alive(&crowd.staying(&nodes.ledger));
    let sessions = crowd.leave().await;
    assert!(sessions.iter().all(|session| session.left), "a client was dropped");
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&Default::default()).await;
    nodes.ledger.pushes_arrived(&sessions);
    nodes.stop().await;
}

#[tokio::test]
async fn two_nodes_that_announce_one_address_say_so_when_the_second_starts() {
    let address = "127.0.0.1:9".parse().unwrap();
    let mut nodes = Nodes::place_all(Plan { nodes: 2, advertise: Some(address), ..Plan::default() }).await;
    nodes.all[0].start().await;
    nodes.all[1].launch().await;
    let line = nodes.all[1].line_with("announces the same address").await;
    assert!(line.contains("127.0.0.1:9") && line.contains(nodes.all[0].id()), "{line}");
    nodes.all[0].line_with("announces the same address").await;
}
