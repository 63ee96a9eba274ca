//! A room on several nodes: one call reaches every member once, whatever dies meanwhile.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tidegate_testing::{Mode, Node, Nodes, Plan, Visitor, eventually};

/// Calls of a backend, each to the node that a test chooses.
pub(crate) struct Caller(Client<HttpConnector, Full<Bytes>>);

impl Caller {
    pub(crate) fn new() -> Self {
        Caller(Client::builder(TokioExecutor::new()).build_http())
    }

    pub(crate) async fn call(&self, node: &Node, method: Method, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let uri = format!("http://{}/prod/{path}", node.internal());
        let request = http::Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap();
        let response = self.0.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    pub(crate) async fn post(&self, node: &Node, path: &str, body: impl Into<Bytes>) -> Value {
        let (status, report) = self.call(node, Method::POST, path, body).await;
        assert_eq!(status, 200, "{report}");
        report
    }

    pub(crate) async fn get(&self, node: &Node, path: &str) -> Value {
        self.call(node, Method::GET, path, "").await.1
    }

    /// Puts a visitor into a group, by a call to any node.
    pub(crate) async fn join(&self, node: &Node, group: &str, visitor: &Visitor) {
        let path = format!("@groups/{group}/connections/{}", visitor.id);
        assert_eq!(self.call(node, Method::PUT, &path, "").await.0, 204);
    }
}

/// Visitors of each node in turn, all in one group; each joins by a call to the next node.
pub(crate) async fn room(nodes: &Nodes, caller: &Caller, group: &str, count: usize) -> Vec<Visitor> {
    let enter = async |number: usize| {
        let node = &nodes.all[number % nodes.all.len()];
        let visitor = Visitor::enter(node.public(), &format!("{group}-{number}"), &nodes.ledger).await;
        caller.join(&nodes.all[(number + 1) % nodes.all.len()], group, &visitor).await;
        visitor
    };
    join_all((0..count).map(enter)).await
}

pub(crate) fn reached(delivered: usize, unreachable: usize) -> Value {
    json!({ "delivered": delivered, "gone": 0, "full": 0, "pending": 0, "unreachableNodes": unreachable })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_one_room_one_post_and_everybody_hears_it_once() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let caller = Caller::new();
    let mut visitors = room(&nodes, &caller, "room-1", 30).await;
    let mut outsider = Visitor::enter(nodes.all[0].public(), "outsider", &nodes.ledger).await;
    for (number, node) in nodes.all.iter().enumerate() {
        assert_eq!(caller.post(node, "@groups/room-1", format!("from {number}")).await, reached(30, 0));
    }
    for visitor in &mut visitors {
        for number in 0..nodes.all.len() {
            assert_eq!(visitor.next_text().await, format!("from {number}"), "once, and in order");
        }
    }
    let all = caller.get(&nodes.all[1], "@groups/room-1?members=true&limit=1000").await;
    let mut ids: Vec<&str> = visitors.iter().map(|visitor| &*visitor.id).collect();
    let mut told: Vec<&str> = all["members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    ids.sort_unstable();
    told.sort_unstable();
    assert_eq!((told, &all["connections"], &all["unreachableNodes"]), (ids, &json!(30), &json!(null)));
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = caller.get(&nodes.all[2], &format!("@groups/room-1?members=true&limit=7{cursor}")).await;
        paged.extend(page["members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    paged.sort_unstable();
    assert_eq!(
        paged,
        visitors
            .iter()
            .map(|it| it.id.clone())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    // Of other nodes too: who is in what, leaving, everybody, many targets.
    let first = visitors.remove(0);
    let groups = caller.get(&nodes.all[1], &format!("@connections/{}/groups", first.id)).await;
    assert_eq!(groups, json!({ "groups": ["room-1"] }));
    let path = format!("@groups/room-1/connections/{}", first.id);
    assert_eq!(caller.call(&nodes.all[2], Method::DELETE, &path, "").await.0, 204);
    let gone = first.leave().await;
    assert_eq!(gone.received.len(), 3, "nothing twice");
    let gone = ["AAAAAAAAAAAAAAAAAAA=".to_owned(), visitors[0].id.replace(&visitors[0].id[8..], "AAAAAAAAAAA=")];
    let targets = json!({
        "targets": { "groups": ["room-1"], "connections": [visitors[0].id, visitors[1].id, outsider.id, gone[0], gone[1]] },
        "data": "sent"
    });
    eventually("the table of members has settled", async || {
        let report = caller.post(&nodes.all[0], "@send", targets.to_string()).await;
        assert_eq!(report["delivered"], 30, "{report}");
        report["gone"] == 2 && report["goneConnections"].as_array().unwrap().len() == 2
    })
    .await;
    assert_eq!(outsider.next_text().await, "sent");
    assert_eq!(caller.post(&nodes.all[2], "@broadcast", "all").await, reached(30, 0));
    let mut last = String::new();
    while last != "all" {
        last = outsider.next_text().await;
    }
    nodes.stop().await;
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "nothing remains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_found_and_closed_on_every_node() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let caller = Caller::new();
    let mut visitors = Vec::new();
    for (number, node) in nodes.all.iter().enumerate() {
        visitors.push(Visitor::enter(node.public(), &format!("ann.{number}"), &nodes.ledger).await);
    }
    assert_eq!(caller.get(&nodes.all[0], "@users/ann").await, json!({ "connections": 3 }));
    assert_eq!(caller.post(&nodes.all[1], "@users/ann", "hi").await, reached(3, 0));
    for visitor in &mut visitors {
        assert_eq!(visitor.next_text().await, "hi");
    }
    let closed = caller.call(&nodes.all[2], Method::DELETE, "@users/ann", "").await;
    assert_eq!(closed, (200, json!({ "connections": 3 })));
    join_all(visitors.into_iter().map(Visitor::closed)).await;
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_lives_on_while_redis_is_away_and_after_it_forgot() {
    let mut nodes = Nodes::start(Plan { lease: Duration::from_secs(2), ..Plan::default() }).await;
    let caller = Caller::new();
    let mut visitors = room(&nodes, &caller, "room-1", 9).await;
    nodes.redis.kill();
    for node in &nodes.all {
        node.readyz(200, "degraded").await;
    }
    visitors.extend(room(&nodes, &caller, "late", 3).await);
    for visitor in &visitors[9..] {
        caller.join(&nodes.all[0], "room-1", visitor).await;
    }
    assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "away").await, reached(12, 0));
    nodes.redis.restart().await;
    for node in &nodes.all {
        node.readyz(200, "\"ready\"").await;
    }
    assert_eq!(caller.post(&nodes.all[1], "@groups/room-1", "back").await, reached(12, 0));
    for visitor in &mut visitors {
        assert_eq!((visitor.next_text().await, visitor.next_text().await), ("away".to_owned(), "back".to_owned()));
    }
    nodes.stop().await;
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_midway_is_told_as_unknown_and_the_rest_hear() {
    let mut nodes = Nodes::start(Plan { lease: Duration::from_secs(2), ..Plan::default() }).await;
    let caller = Caller::new();
    let mut visitors = room(&nodes, &caller, "room-1", 9).await;
    // It has the message in its socket, and will never say what became of it.
    let (others, dying) = nodes.all.split_at_mut(2);
    dying[0].signal("STOP");
    let push = caller.post(&others[0], "@groups/room-1", "one");
    let killed = async {
        let first = visitors[0].next_text().await;
        dying[0].kill().await;
        first
    };
    let (report, first) = tokio::join!(push, killed);
    assert_eq!((report, &*first), (reached(6, 1), "one"));
    let first_id = visitors[0].id.clone();
    // Who is left is a room as before.
    let report = caller.post(&nodes.all[1], "@groups/room-1", "two").await;
    assert_eq!(report["delivered"], 6, "{report}");
    for visitor in visitors.iter_mut().take(2) {
        assert_eq!(visitor.next_text().await, if visitor.id == first_id { "two" } else { "one" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_unreachable_until_it_is_buried_and_its_members_are_gone_from_then_on() {
    // A link whose other end is silent for a lease is cut: the living must not lose theirs on a machine without time.
    let mut nodes = Nodes::start(Plan { lease: Duration::from_secs(8), ..Plan::default() }).await;
    let caller = Caller::new();
    let visitors = room(&nodes, &caller, "room-1", 9).await;
    let dead: Vec<&str> = visitors.iter().skip(2).step_by(3).map(|visitor| &*visitor.id).collect();
    let (living, dying) = nodes.all.split_at_mut(2);
    assert_eq!(caller.get(&living[0], "@groups/room-1").await, json!({ "connections": 9 }));
    dying[0].signal("STOP");
    let (first, ()) = tokio::join!(caller.post(&living[0], "@groups/room-1", "one"), dying[0].kill());
    // What each of the living says, until neither counts it any more.
    for node in living {
        let reports = RefCell::new(vec![first.clone()]);
        eventually("the dead node is buried", async || {
            let report = caller.post(node, "@groups/room-1", "more").await;
            let is_buried = report == reached(6, 0);
            reports.borrow_mut().push(report);
            is_buried
        })
        .await;
        let reports = reports.into_inner();
        assert!(reports[..reports.len() - 1].iter().all(|report| *report == reached(6, 1)), "{reports:?}");
        for _ in 0..3 {
            assert_eq!(caller.post(node, "@groups/room-1", "again").await, reached(6, 0), "it does not come back");
        }
        assert_eq!(caller.get(node, "@groups/room-1").await, json!({ "connections": 6 }));
        let all = caller.get(node, "@groups/room-1?members=true&limit=100").await;
        assert!(dead.iter().all(|id| !all["members"].as_array().unwrap().contains(&json!(id))), "{all}");
        let named = json!({ "targets": { "connections": dead }, "data": "anybody?" });
        let report = caller.post(node, "@send", named.to_string()).await;
        assert_eq!((&report["gone"], &report["delivered"]), (&json!(3), &json!(0)), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_and_leaves_a_thousand_times_is_in_the_end_where_the_last_call_said() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let caller = Caller::new();
    let mut visitors = Vec::new();
    for name in ["stays", "leaves"] {
        visitors.push(Visitor::enter(nodes.all[0].public(), name, &nodes.ledger).await);
    }
    let memberships = async || nodes.all[0].metric("tidegate_group_memberships").await.unwrap();
    let before = memberships().await;
    let [node_of_joins, node_of_pushes] = [&nodes.all[1], &nodes.all[2]];
    let churn = async |visitor: &Visitor, last: Method| {
        let path = format!("@groups/room-1/connections/{}", visitor.id);
        for _ in 0..1000 {
            for method in [Method::PUT, Method::DELETE] {
                assert_eq!(caller.call(node_of_joins, method, &path, "").await.0, 204);
            }
        }
        assert_eq!(caller.call(node_of_joins, last, &path, "").await.0, 204);
    };
    let is_over = AtomicBool::new(false);
    let pushes = async {
        let mut expected = 0;
        while !is_over.load(Ordering::SeqCst) {
            let report = caller.post(node_of_pushes, "@groups/room-1", "pushed").await;
            let [delivered, pending] = ["delivered", "pending"].map(|count| report[count].as_u64().unwrap());
            assert!(delivered + pending <= 2, "{report}");
            assert_eq!((&report["gone"], &report["unreachableNodes"]), (&json!(0), &json!(0)), "{report}");
            expected += delivered + pending;
        }
        expected
    };
    let churns = async {
        tokio::join!(churn(&visitors[0], Method::PUT), churn(&visitors[1], Method::DELETE));
        is_over.store(true, Ordering::SeqCst);
    };
    let (expected, ()) = tokio::join!(pushes, churns);
    assert_eq!(caller.post(node_of_pushes, "@groups/room-1", "last").await, reached(1, 0));
    assert_eq!(caller.get(node_of_joins, "@groups/room-1").await, json!({ "connections": 1 }));
    for (visitor, groups) in visitors.iter().zip([json!(["room-1"]), json!([])]) {
        let told = caller.get(node_of_pushes, &format!("@connections/{}/groups", visitor.id)).await;
        assert_eq!(told, json!({ "groups": groups }));
        caller.post(node_of_pushes, &format!("@connections/{}", visitor.id), "end").await;
    }
    let mut heard = Vec::new();
    for visitor in &mut visitors {
        loop {
            match visitor.next_text().await {
                text if text == "end" => break,
                text => heard.push(text),
            }
        }
    }
    assert_eq!(heard.iter().filter(|text| *text == "last").count(), 1);
    assert_eq!(heard.len() as u64, expected + 1, "each has what it was counted for, once");
    assert_eq!(memberships().await, before + 1.0, "nothing is left over");
    join_all(visitors.into_iter().map(Visitor::leave)).await;
    eventually("who has gone is in nothing", async || memberships().await == 0.0).await;
    nodes.stop().await;
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_cut_apart_say_that_they_do_not_know_of_each_other() {
    let nodes = Nodes::start(Plan { proxied: true, ..Plan::default() }).await;
    let caller = Caller::new();
    let mut visitors = room(&nodes, &caller, "room-1", 3).await;
    nodes.set(|node| &node.peer_proxy, Mode::Cut);
    eventually("all links are cut", async || nodes.all[0].metric("tidegate_links_open").await == Some(0.0)).await;
    assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "apart").await, reached(1, 2));
    assert_eq!(visitors[0].next_text().await, "apart");
    let path = format!("@groups/room-1/connections/{}", visitors[1].id);
    assert_eq!(caller.call(&nodes.all[0], Method::PUT, &path, "").await.0, 503);
    nodes.set(|node| &node.peer_proxy, Mode::Pass);
    nodes.linked().await;
    assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "together").await, reached(3, 0));
    for visitor in &mut visitors {
        assert_eq!(visitor.next_text().await, "together");
    }
}
