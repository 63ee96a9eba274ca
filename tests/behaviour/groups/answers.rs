//! Actions of a backend in its answer to an event, without a call.

use serde_json::{Value, json};
use tidegate_testing::{Reply, Settings, TestBackend, eventually, http};

use crate::groups::room::{Room, delivered};

fn tidegate(actions: &Value) -> Reply {
    Reply::json(&json!({ "statusCode": 200, "tidegate": actions }))
}

#[tokio::test]
async fn an_answer_joins_leaves_and_pushes() {
    let room = Room::start().await;
    room.backend.answer("CONNECT", tidegate(&json!({ "join": ["lobby"] })));
    let (mut ann, ann_id) = room.client().await;
    let hello = json!({ "group": "lobby", "data": "bob is here", "except": ["self"] });
    let welcome = json!({ "connection": "self", "data": "welcome" });
    room.backend.answer("CONNECT", tidegate(&json!({ "join": ["lobby", "vip"], "send": [hello, welcome] })));
    let (mut bob, bob_id) = room.client().await;
    assert_eq!(ann.next_text().await, "bob is here");
    assert_eq!(bob.next_text().await, "welcome");
    let said = json!({ "group": "lobby", "data": "last words" });
    let answer = json!({
        "statusCode": 200, "body": "moved", "tidegate": { "leave": ["lobby", "never"], "join": ["room-1"], "send": [said] }
    });
    room.backend.answer("MESSAGE", Reply::json(&answer));
    bob.send("move").await;
    assert_eq!(bob.next_text().await, "moved");
    assert_eq!(ann.next_text().await, "last words");
    assert_eq!(room.get(&format!("@connections/{bob_id}/groups")).await, json!({ "groups": ["room-1", "vip"] }));
    assert_eq!(room.get(&format!("@connections/{ann_id}/groups")).await, json!({ "groups": ["lobby"] }));
    room.gateway.drain().await;
}

#[tokio::test]
async fn the_answer_to_a_disconnect_tells_those_who_stay() {
    let room = Room::start().await;
    let (mut ann, _) = room.member("lobby").await;
    let (bob, _) = room.member("lobby").await;
    room.backend.answer("DISCONNECT", tidegate(&json!({ "send": [{ "group": "lobby", "data": "bob left" }] })));
    bob.close(Some((1000, ""))).await;
    assert_eq!(ann.next_text().await, "bob left");
    room.gateway.drain().await;
}

#[tokio::test]
async fn an_http_backend_says_it_in_headers() {
    let backend = TestBackend::start().await;
    let gateway = Settings::http_proxy(&backend).start().await;
    let joined = Reply::http(200, "").header("x-tidegate-join", "a, b").header("x-tidegate-user", "%C3%84nn");
    backend.answer("CONNECT", joined);
    let (mut client, id) = gateway.client(&backend).await;
    let call = async |method: &'static str, path: String| {
        http(gateway.internal(), method, &format!("/prod/{path}"), &[], b"hi").await.json()
    };
    assert_eq!(call("GET", format!("@connections/{id}/groups")).await, json!({ "groups": ["a", "b"] }));
    assert_eq!(call("POST", "@users/%C3%84nn".to_owned()).await, delivered(1));
    assert_eq!(client.next_text().await, "hi");
    let moved = Reply::http(200, "ok").header("x-tidegate-leave", "a").header("x-tidegate-join", "c");
    backend.answer("MESSAGE", moved);
    client.send("move").await;
    assert_eq!(client.next_text().await, "ok");
    assert_eq!(call("GET", format!("@connections/{id}/groups")).await, json!({ "groups": ["b", "c"] }));
    gateway.drain().await;
}

#[tokio::test]
async fn a_backend_that_says_no_asks_for_nothing() {
    let room = Room::start().await;
    let (mut client, _) = room.member("a").await;
    let refused = json!({ "statusCode": 403, "body": "no", "tidegate": { "send": [{ "group": "a", "data": "x" }] } });
    room.backend.answer("CONNECT", Reply::json(&refused));
    room.gateway.try_connect("/prod", &[]).await.err().expect("refused");
    room.backend.answer("MESSAGE", Reply::json(&refused));
    client.send("x").await;
    assert_eq!(client.next_text().await, "no");
    room.gateway.drain().await;
}

#[tokio::test]
async fn an_answer_that_asks_for_what_cannot_be_is_a_failed_call() {
    let room = Room::start().await;
    let (mut client, id) = room.client().await;
    for wrong in [
        json!({ "join": ["a b"] }),
        json!({ "join": "a" }),
        json!({ "jion": ["a"] }),
        json!({ "join": ["fine"], "send": [{ "data": "to nobody" }] }),
        json!(7),
    ] {
        room.backend.answer("MESSAGE", tidegate(&wrong));
        client.send("x").await;
        assert_eq!(client.next_json().await["message"], "Internal server error", "{wrong}");
    }
    assert_eq!(room.get(&format!("@connections/{id}/groups")).await, json!({ "groups": [] }));
    room.backend.answer("CONNECT", tidegate(&json!({ "join": [""] })));
    let refused = room.gateway.handshake("/prod", &[]).await;
    assert_eq!(refused.status, 502);
    eventually("it is counted", async || room.gateway.metric("tidegate_integration_errors_total").await == 6).await;
    room.gateway.drain().await;
}

#[tokio::test]
async fn joining_and_leaving_all_the_time_ends_where_the_last_word_was() {
    let room = Room::start().await;
    let (mut client, id) = room.client().await;
    room.backend.answer_with(|call| {
        let change = if call.text().contains("join") { "join" } else { "leave" };
        tidegate(&json!({ change: ["busy"], "send": [{ "connection": "self", "data": change }] }))
    });
    for round in 0..1000 {
        let change = if round % 2 == 0 { "join" } else { "leave" };
        client.send(change).await;
        assert_eq!(client.next_text().await, change);
    }
    assert_eq!(room.get("@groups/busy").await, json!({ "connections": 0 }));
    room.join("busy", &id).await;
    assert_eq!(room.post("@groups/busy", "still here").await, delivered(1));
    assert_eq!(client.next_text().await, "still here");
    room.gateway.drain().await;
}
