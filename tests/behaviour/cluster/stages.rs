//! The policy of the node that is called, and the stage that only the owner of a connection knows.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::support::{Http, KEY_SECRET, TestCluster, TestNode, request, signed};

/// A signed call below a stage of `chat`, on the internal listener: its status and its answer.
async fn call(node: &TestNode, key: &str, method: Method, path: &str, body: &str) -> (u16, Value) {
    let mut http = Http::connect(node.gateway.internal_address(), &node.tasks).await;
    let target = format!("/_aws/execute-api/chat/{path}");
    let headers = signed((key, KEY_SECRET), (method.as_str(), "localhost", &target), &[], body.as_bytes());
    let mut request = request(method, &target, body.to_owned());
    for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
        request.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    let reply = http.send(request).await;
    (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
}

#[tokio::test]
async fn a_key_of_one_stage_reaches_no_connection_of_another_on_any_node() {
    let cluster = TestCluster::start(2).await;
    let [owner, caller] = &cluster.nodes[..] else { panic!("two") };
    let (mut prod, mut test) = (owner.connect().await, owner.connect_to("test").await);
    for node in [caller, owner] {
        let by = async |key: &str, method: Method, path: &str, body: &str| {
            call(node, key, method, &format!("test/{path}"), body).await
        };
        for (method, path) in [
            (Method::POST, format!("@connections/{}", prod.id)),
            (Method::GET, format!("@connections/{}", prod.id)),
            (Method::DELETE, format!("@connections/{}", prod.id)),
            (Method::GET, format!("@connections/{}/groups", prod.id)),
            (Method::PUT, format!("@groups/a/connections/{}", prod.id)),
            (Method::DELETE, format!("@groups/a/connections/{}", prod.id)),
        ] {
            assert_eq!(by("AKIDTEST", method.clone(), &path, "").await.0, 410, "{method} {path}");
        }
        assert_eq!(by("AKIDBOTH", Method::DELETE, &format!("@connections/{}", prod.id), "").await.0, 410);
        let ids = json!([prod.id, test.id]);
        let send = json!({ "targets": { "connections": ids }, "data": "by send" }).to_string();
        let (_, report) = by("AKIDTEST", Method::POST, "@send", &send).await;
        assert_eq!((&report["delivered"], &report["goneConnections"]), (&json!(1), &json!([prod.id])));
        let many = json!({ "connections": ids }).to_string();
        let (_, report) = by("AKIDTEST", Method::PUT, "@groups/a/connections", &many).await;
        assert_eq!((&report["changed"], &report["goneConnections"]), (&json!(1), &json!([prod.id])));
        assert_eq!(test.next_text().await, "by send");

        // Its own stage, and keys that may do the same in both.
        assert_eq!(by("AKIDTEST", Method::POST, &format!("@connections/{}", test.id), "own").await.0, 200);
        assert_eq!(test.next_text().await, "own");
        assert_eq!(by("AKIDTEST", Method::GET, &format!("@connections/{}/groups", test.id), "").await.0, 200);
        for key in ["AKIDBOTH", "AKIDALL"] {
            assert_eq!(by(key, Method::POST, &format!("@connections/{}", prod.id), key).await.0, 200);
            assert_eq!(prod.next_text().await, key);
            let (_, report) = by(key, Method::POST, "@send", &send).await;
            assert_eq!(report["delivered"], 2, "{key}: {report}");
            assert_eq!((prod.next_text().await, test.next_text().await), ("by send".into(), "by send".into()));
        }
        assert_eq!(by("AKIDALL", Method::GET, &format!("@connections/{}", prod.id), "").await.0, 200);
    }
}
