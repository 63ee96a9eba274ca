//! The policy of the node that is called, and the stage that only the owner of a connection knows.

use serde_json::{Value, json};
use tidegate_testing::{KEY_SECRET, TestCluster, TestNode, http, signed};

/// A signed call below a stage of `chat`, on the internal listener: its status and its answer.
async fn call(node: &TestNode, key: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let target = format!("/_aws/execute-api/chat/{path}");
    let (address, host) = (node.gateway.internal_address(), "localhost");
    let headers = signed((key, KEY_SECRET), (method, host, &target), &[], body.as_bytes());
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let reply = http(address, method, &target, &headers, body.as_bytes()).await;
    (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
}

#[tokio::test]
async fn a_key_of_one_stage_reaches_no_connection_of_another_on_any_node() {
    let cluster = TestCluster::start(2).await;
    let [owner, caller] = &cluster.nodes[..] else { panic!("two") };
    let (mut prod, mut test) = (owner.connect().await, owner.connect_to("test").await);
    for node in [caller, owner] {
        let by = async |key: &str, method: &str, path: &str, body: &str| {
            call(node, key, method, &format!("test/{path}"), body).await
        };
        for (method, path) in [
            ("POST", format!("@connections/{}", prod.id())),
            ("GET", format!("@connections/{}", prod.id())),
            ("DELETE", format!("@connections/{}", prod.id())),
            ("GET", format!("@connections/{}/groups", prod.id())),
            ("PUT", format!("@groups/a/connections/{}", prod.id())),
            ("DELETE", format!("@groups/a/connections/{}", prod.id())),
        ] {
            assert_eq!(by("AKIDTEST", method, &path, "").await.0, 410, "{method} {path}");
        }
        assert_eq!(by("AKIDBOTH", "DELETE", &format!("@connections/{}", prod.id()), "").await.0, 410);
        let ids = json!([prod.id(), test.id()]);
        let send = json!({ "targets": { "connections": ids }, "data": "by send" }).to_string();
        let (_, report) = by("AKIDTEST", "POST", "@send", &send).await;
        assert_eq!((&report["delivered"], &report["goneConnections"]), (&json!(1), &json!([prod.id()])));
        let many = json!({ "connections": ids }).to_string();
        let (_, report) = by("AKIDTEST", "PUT", "@groups/a/connections", &many).await;
        assert_eq!((&report["changed"], &report["goneConnections"]), (&json!(1), &json!([prod.id()])));
        assert_eq!(test.next_text().await, "by send");

        // Its own stage, and keys that may do the same in both.
        assert_eq!(by("AKIDTEST", "POST", &format!("@connections/{}", test.id()), "own").await.0, 200);
        assert_eq!(test.next_text().await, "own");
        assert_eq!(by("AKIDTEST", "GET", &format!("@connections/{}/groups", test.id()), "").await.0, 200);
        for key in ["AKIDBOTH", "AKIDALL"] {
            assert_eq!(by(key, "POST", &format!("@connections/{}", prod.id()), key).await.0, 200);
            assert_eq!(prod.next_text().await, key);
            let (_, report) = by(key, "POST", "@send", &send).await;
            assert_eq!(report["delivered"], 2, "{key}: {report}");
            assert_eq!((prod.next_text().await, test.next_text().await), ("by send".into(), "by send".into()));
        }
        assert_eq!(by("AKIDALL", "GET", &format!("@connections/{}", prod.id()), "").await.0, 200);
    }
}
