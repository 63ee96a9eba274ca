use serde_json::{Value, json};
use tidegate_connections::cluster::ClusterMember;
use tidegate_connections::redis_client::NodeKey;
use tidegate_testing::{Mode, TestClient, TestCluster, TestNode, TestProxy, eventually};

async fn call(node: &TestNode, method: &str, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/_aws/execute-api/chat/prod/{path}");
    let reply = node.http().send(method, &path, &[], body.to_owned()).await;
    (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
}

async fn member(node: &TestNode, group: &str) -> TestClient {
    let client = node.connect().await;
    let path = format!("@groups/{group}/connections/{}", client.id());
    assert_eq!(call(node, "PUT", &path, "").await.0, 204);
    client
}

fn reached(delivered: usize, unreachable: usize) -> (u16, Value) {
    let report = json!({ "delivered": delivered, "gone": 0, "full": 0, "pending": 0, "unreachableNodes": unreachable });
    (200, report)
}

#[tokio::test]
async fn the_members_of_a_dead_node_vanish_with_it() {
    let cluster = TestCluster::start_apart(3).await;
    let [first, second, lost] = &cluster.nodes[..] else { panic!("three") };
    let proxy = TestProxy::start(lost.gateway.peer_address().unwrap(), &cluster.tasks).await;
    let others = [first.member(), lost.member_at(proxy.address)];
    second.knows(others.clone());
    eventually("all are linked", async || second.is_linked(first.id()) && second.is_linked(lost.id())).await;
    let mut alive = member(first, "a").await;
    let dead = member(lost, "a").await;
    assert_eq!(call(second, "POST", "@groups/a", "both").await, reached(2, 0));
    assert_eq!(alive.next_text().await, "both");

    // Its peers cannot reach it, and do not know yet for how long.
    proxy.set(Mode::Cut);
    eventually("the link is lost", async || !second.is_linked(lost.id())).await;
    let path = format!("@groups/a/connections/{}", dead.id());
    assert_eq!(call(second, "PUT", &path, "").await.0, 503);
    assert_eq!(call(second, "POST", "@groups/a", "one").await, reached(1, 1));
    let asked = call(second, "GET", "@groups/a", "").await;
    assert_eq!(asked, (200, json!({ "connections": 1, "unreachableNodes": 1 })));

    let [first_member, member] = others;
    second.knows([first_member, ClusterMember { key: NodeKey::Dead { epoch: 1 }, lease_alive: false, ..member }]);
    assert_eq!(call(second, "POST", "@groups/a", "two").await, reached(1, 0));
    assert_eq!(call(second, "PUT", &path, "").await.0, 410);
    let targets = json!({ "targets": { "connections": [dead.id(), alive.id()] }, "data": "three" }).to_string();
    let (_, report) = call(second, "POST", "@send", &targets).await;
    assert_eq!((&report["delivered"], &report["goneConnections"]), (&json!(1), &json!([dead.id()])));
    for text in ["one", "two", "three"] {
        assert_eq!(alive.next_text().await, text);
    }
}
