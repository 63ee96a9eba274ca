//! Users of connections: from the authorizer, from the token, from the backend's answer.

use serde_json::json;
use tidegate_testing::{Reply, eventually};

use crate::groups::room::{Room, delivered};

fn named(user: &str) -> Reply {
    Reply::json(&json!({ "statusCode": 200, "tidegate": { "user": user } }))
}

#[tokio::test]
async fn a_user_is_reached_on_all_connections_and_all_are_closed_at_once() {
    let room = Room::start().await;
    room.backend.answer("CONNECT", named("ann"));
    let (mut phone, _) = room.client().await;
    room.backend.answer("CONNECT", named("ann"));
    let (mut laptop, laptop_id) = room.client().await;
    room.backend.answer("CONNECT", named("bob"));
    let (mut bob, _) = room.client().await;
    assert_eq!(room.get("@users/ann").await, json!({ "connections": 2 }));
    let listed = room.get("@users/ann?members=true").await;
    assert!(listed["members"].as_array().unwrap().contains(&json!(laptop_id)));
    assert_eq!(room.post("@users/ann", "hi").await, delivered(2));
    assert_eq!((phone.next_text().await, laptop.next_text().await), ("hi".to_owned(), "hi".to_owned()));
    let closed = room.call("DELETE", "@users/ann?code=4001&reason=kicked", b"").await;
    assert_eq!((closed.status, closed.json()), (200, json!({ "connections": 2 })));
    assert_eq!(phone.next_close().await, (4001, "kicked".to_owned()));
    assert_eq!(laptop.next_close().await, (4001, "kicked".to_owned()));
    eventually("ann is gone", async || room.get("@users/ann").await == json!({ "connections": 0 })).await;
    assert_eq!(room.post("@users/ann", "still there?").await, delivered(0));
    assert_eq!(room.post("@users/bob", "you stay").await, delivered(1));
    assert_eq!(bob.next_text().await, "you stay");
    room.gateway.drain().await;
}

#[tokio::test]
async fn users_have_any_name_and_are_no_groups() {
    let room = Room::start().await;
    let longest = "x".repeat(256);
    for (user, path) in [("Änn / 2?", "%C3%84nn%20%2F%202%3F"), (&*longest, &*longest), ("..", "%2E%2E"), ("a", "a")] {
        room.backend.answer("CONNECT", named(user));
        let (mut client, _) = room.client().await;
        assert_eq!(room.post(&format!("@users/{path}"), "hi").await, delivered(1), "{user}");
        assert_eq!(client.next_text().await, "hi");
        client.close(Some((1000, ""))).await;
    }
    room.backend.answer("CONNECT", named("a"));
    let (_client, id) = room.client().await;
    assert_eq!(room.post("@groups/a", "no group").await, delivered(0));
    assert_eq!(room.get(&format!("@connections/{id}/groups")).await, json!({ "groups": [] }));
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_later_answer_says_who_it_is_now() {
    let room = Room::start().await;
    room.backend.answer("CONNECT", named("guest"));
    let (mut client, _) = room.client().await;
    room.backend.answer(
        "MESSAGE",
        Reply::json(&json!({
            "statusCode": 200, "body": "welcome", "tidegate": { "user": ["ann", "tenant:5"] }
        })),
    );
    client.send("sign in").await;
    assert_eq!(client.next_text().await, "welcome");
    assert_eq!(room.get("@users/guest").await, json!({ "connections": 0 }));
    for user in ["ann", "tenant:5"] {
        assert_eq!(room.post(&format!("@users/{user}"), user).await, delivered(1));
        assert_eq!(client.next_text().await, user);
    }
    room.gateway.drain().await;
}

#[tokio::test]
async fn an_authorizer_says_who_it_is() {
    let authorizer = tidegate_testing::TestBackend::start().await;
    authorizer.answer_with(|_| {
        Reply::json(&json!({
            "principalId": "ann@example.com",
            "policyDocument": {
                "Version": "2012-10-17",
                "Statement": [{ "Action": "execute-api:Invoke", "Effect": "Allow", "Resource": "*" }]
            }
        }))
    });
    let url = authorizer.url();
    let room = Room::with(|settings| {
        settings
            .api(format!(
                "authorizers: {{ gate: {{ authorizerType: REQUEST, authorizerUri: '{url}/', \
                 identitySource: [ route.request.querystring.token ] }} }}"
            ))
            .routes(
                "$connect: { target: integrations/backend, authorizationType: CUSTOM, authorizerId: gate }, \
                 $disconnect: { target: integrations/backend }, $default: { target: integrations/backend }",
            )
    })
    .await;
    let mut client = room.gateway.connect("/prod?token=t").await;
    assert_eq!(room.post("@users/ann@example.com", "hi").await, delivered(1));
    assert_eq!(client.next_text().await, "hi");
    room.gateway.drain().await;
}
