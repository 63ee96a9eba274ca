//! Names, lists and bodies that cannot be.

use serde_json::json;

use crate::groups::membership::NOBODY;
use crate::groups::room::{Room, delivered};

#[tokio::test]
async fn names_that_cannot_be_are_refused() {
    let room = Room::start().await;
    let (_client, id) = room.client().await;
    let long = "a".repeat(129);
    for group in ["a%20b", "a%00", "%C3%A4", "a%2Fb", "a,b", "a%25", "*", "%0d%0a", &long] {
        for (method, path) in [
            ("POST", format!("@groups/{group}")),
            ("GET", format!("@groups/{group}")),
            ("PUT", format!("@groups/{group}/connections/{id}")),
            ("DELETE", format!("@groups/{group}/connections/{id}")),
            ("PUT", format!("@groups/{group}/connections")),
        ] {
            let response = room.call(method, &path, b"").await;
            assert_eq!((response.status, response.error_type()), (400, Some("BadRequestException")), "{method} {path}");
        }
    }
    let user = "x".repeat(257);
    assert_eq!(room.call("POST", &format!("@users/{user}"), b"").await.status, 400);
    // What is not UTF-8 is no path at all.
    assert_eq!(room.call("POST", "@groups/%ff", b"").await.status, 403);
    assert_eq!(room.call("POST", "@users/%ff%fe", b"").await.status, 403);
    for (method, path) in [
        ("POST", "@groups"),
        ("PUT", "@groups/a"),
        ("DELETE", "@groups/a"),
        ("GET", "@send"),
        ("PUT", "@broadcast"),
        ("POST", "@groups/a/connections"),
        ("PATCH", "@users/a"),
        ("POST", "@connections/x/groups"),
    ] {
        assert_eq!(room.call(method, path, b"").await.status, 403, "{method} {path}");
    }
    assert_eq!(room.call("PUT", "@groups/a/connections/what", b"").await.status, 400);
    room.gateway.expect_alive(&room.backend).await;
    room.gateway.drain().await;
}

#[tokio::test]
async fn options_that_cannot_be_are_refused() {
    let room = Room::start().await;
    for (name, value) in [("x-tidegate-except", "me"), ("x-tidegate-except", "a,b"), ("x-tidegate-data-type", "json")] {
        for path in ["@groups/a", "@users/a", "@broadcast", "@send"] {
            let response = room.call_with("POST", path, &[(name, value)], br#"{"group":"a","data":""}"#).await;
            assert_eq!(response.status, 400, "{name}: {value} {path}");
        }
    }
    let except = [("x-tidegate-except", &*format!(" {NOBODY} ,, {NOBODY}"))];
    assert_eq!(room.call_with("POST", "@groups/a", &except, b"").await.json(), delivered(0));
    for query in ["members=yes", "members=true&limit=0", "members=true&limit=1001", "members=true&cursor=x"] {
        assert_eq!(room.call("GET", &format!("@groups/a?{query}"), b"").await.status, 400, "{query}");
    }
    room.gateway.drain().await;
}

#[tokio::test]
async fn bodies_that_cannot_be_are_refused_and_send_nothing() {
    let room = Room::start().await;
    let nested = "[".repeat(100_000);
    for body in ["", "x", "[]", "7", "{}", r#"{"group":"a"}"#, r#"{"group":7,"data":"x"}"#, "\0", &nested] {
        let response = room.call("POST", "@send", body.as_bytes()).await;
        assert_eq!(response.status, 400, "{:?}", &body[..body.len().min(40)]);
        if body != r#"{"connections":[]}"# {
            assert_eq!(room.call("PUT", "@groups/a/connections", body.as_bytes()).await.status, 400);
        }
    }
    assert_eq!(room.call("POST", "@send", b"\xff\xfe").await.status, 400);
    room.gateway.expect_alive(&room.backend).await;
    room.gateway.drain().await;
}

#[tokio::test]
async fn what_is_too_much_is_413_and_names_the_limit() {
    let room =
        Room::with(|settings| settings.section("limits: { targets: 100, bulkBytes: 65536, messageBytes: 1000 }")).await;
    let ids = vec![NOBODY; 101];
    let too_many_targets = json!({ "targets": { "connections": ids }, "data": "" }).to_string();
    let too_many_members = json!({ "connections": ids }).to_string();
    let too_long = json!({ "group": "a", "data": "x".repeat(1001) }).to_string();
    let ten_megabytes = json!({ "targets": { "connections": vec![NOBODY; 450_000] }, "data": "" }).to_string();
    let lines = "{\"group\":\"a\",\"data\":\"\"}\n".repeat(1001);
    for (method, path, body, limit) in [
        ("POST", "@send", &*too_many_targets, "limits.targets"),
        ("PUT", "@groups/a/connections", &*too_many_members, "limits.targets"),
        ("POST", "@send", &*too_long, "limits.messageBytes"),
        ("POST", "@send", &*ten_megabytes, "limits.bulkBytes"),
        ("PUT", "@groups/a/connections", &*ten_megabytes, "limits.bulkBytes"),
        ("POST", "@send", &*lines, "more than 1000 messages"),
        ("POST", "@groups/a", &*ten_megabytes, "limits.messageBytes"),
        ("POST", "@users/a", &*ten_megabytes, "limits.messageBytes"),
        ("POST", "@broadcast", &*ten_megabytes, "limits.messageBytes"),
    ] {
        let response = room.call(method, path, body.as_bytes()).await;
        assert_eq!((response.status, response.error_type()), (413, Some("PayloadTooLargeException")), "{path}");
        assert!(response.text().contains(limit), "{path}: {response:?}");
    }
    assert_eq!(room.post("@groups/a", "x".repeat(1000)).await, delivered(0));
    room.gateway.expect_alive(&room.backend).await;
    room.gateway.drain().await;
}
