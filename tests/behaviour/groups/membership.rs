//! Joining, leaving, asking who is there, and sending to all of a group.

use serde_json::json;
use tidegate_testing::eventually;

use crate::groups::room::{Room, delivered};

/// An id of this gateway's shape that nobody has.
pub(crate) const NOBODY: &str = "AAAAAAAAAAAAAAAAAAA=";

#[tokio::test]
async fn a_post_to_a_group_reaches_its_members_and_nobody_else() {
    let room = Room::start().await;
    let (mut ann, _) = room.member("room-1").await;
    let (mut bob, bob_id) = room.member("room-1").await;
    let (mut eve, _) = room.member("room-2").await;
    assert_eq!(room.post("@groups/room-1", "hi").await, delivered(2));
    assert_eq!((ann.next_text().await, bob.next_text().await), ("hi".to_owned(), "hi".to_owned()));
    room.leave("room-1", &bob_id).await;
    assert_eq!(room.post("@groups/room-1", "again").await, delivered(1));
    assert_eq!(room.post("@groups/room-2", "other").await, delivered(1));
    assert_eq!((ann.next_text().await, eve.next_text().await), ("again".to_owned(), "other".to_owned()));
    assert_eq!(room.post("@groups/empty", "hello?").await, delivered(0));
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_group_begins_with_its_first_member_and_ends_with_its_last() {
    let room = Room::start().await;
    let (client, id) = room.client().await;
    assert_eq!(room.get("@groups/a").await, json!({ "connections": 0 }));
    for _ in 0..2 {
        room.join("a", &id).await;
    }
    assert_eq!(room.get("@groups/a").await, json!({ "connections": 1 }));
    assert_eq!(room.gateway.metric("tidegate_groups").await, 1);
    for _ in 0..2 {
        room.leave("a", &id).await;
    }
    assert_eq!(room.get("@groups/a").await, json!({ "connections": 0 }));
    room.join("a", &id).await;
    client.close(Some((1000, ""))).await;
    eventually("the group is gone", async || room.gateway.metric("tidegate_groups").await == 0).await;
    assert_eq!(room.gateway.metric("tidegate_group_memberships").await, 0);
    room.gateway.drain().await;
}

#[tokio::test]
async fn whoever_is_gone_cannot_join_or_leave() {
    let room = Room::start().await;
    let (client, id) = room.member("a").await;
    client.close(Some((1000, ""))).await;
    room.gateway.settled().await;
    for method in ["PUT", "DELETE"] {
        for gone in [&id, NOBODY] {
            let response = room.call(method, &format!("@groups/a/connections/{gone}"), b"").await;
            assert_eq!((response.status, response.error_type()), (410, Some("GoneException")));
        }
    }
    assert_eq!(room.call("GET", &format!("@connections/{id}/groups"), b"").await.status, 410);
    room.gateway.drain().await;
}

#[tokio::test]
async fn the_groups_of_a_connection_are_told_by_name() {
    let room = Room::start().await;
    let (_client, id) = room.member("b").await;
    room.join("a", &id).await;
    room.join("A:1@x=.y_z-", &id).await;
    assert_eq!(room.get(&format!("@connections/{id}/groups")).await, json!({ "groups": ["A:1@x=.y_z-", "a", "b"] }));
    room.leave("b", &id).await;
    assert_eq!(room.get(&format!("@connections/{id}/groups")).await, json!({ "groups": ["A:1@x=.y_z-", "a"] }));
    room.gateway.drain().await;
}

#[tokio::test]
async fn members_are_told_a_page_at_a_time_in_the_order_of_their_ids() {
    let room = Room::start().await;
    let mut clients = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..25 {
        let (client, id) = room.member("a").await;
        clients.push(client);
        ids.push(id);
    }
    let (mut told, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = room.get(&format!("@groups/a?members=true&limit=10{cursor}")).await;
        assert_eq!(page["connections"], 25);
        told.extend(page["members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace('=', "%3D")),
            None => break,
        }
    }
    told.sort();
    ids.sort();
    assert_eq!(told, ids);
    let all = room.get("@groups/a?members=true").await;
    assert_eq!((all["members"].as_array().unwrap().len(), &all["cursor"]), (25, &json!(null)));
    room.gateway.drain().await;
}

#[tokio::test]
async fn many_join_and_leave_in_one_call() {
    let room = Room::start().await;
    let (mut ann, ann_id) = room.client().await;
    let (_bob, bob_id) = room.client().await;
    let body = json!({ "connections": [ann_id, bob_id, NOBODY, ann_id] }).to_string();
    let joined = room.call("PUT", "@groups/a/connections", body.as_bytes()).await;
    let expected = json!({
        "changed": 2, "goneConnections": [NOBODY], "fullConnections": [], "unreachableConnections": []
    });
    assert_eq!((joined.status, joined.json()), (200, expected));
    assert_eq!(room.post("@groups/a", "hi").await, delivered(2));
    assert_eq!(ann.next_text().await, "hi");
    let body = json!({ "connections": [bob_id] }).to_string();
    let left = room.call("DELETE", "@groups/a/connections", body.as_bytes()).await;
    assert_eq!((left.status, &left.json()["changed"]), (200, &json!(1)));
    assert_eq!(room.get("@groups/a").await, json!({ "connections": 1 }));
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_connection_is_in_as_many_groups_as_it_may() {
    let room = Room::with(|settings| settings.section("limits: { groupsPerConnection: 2 }")).await;
    let (_client, id) = room.member("a").await;
    room.join("b", &id).await;
    let refused = room.call("PUT", &format!("@groups/c/connections/{id}"), b"").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("limits.groupsPerConnection is 2"), "{refused:?}");
    let body = json!({ "connections": [id] }).to_string();
    let many = room.call("PUT", "@groups/c/connections", body.as_bytes()).await;
    assert_eq!(many.json()["fullConnections"], json!([id]));
    room.join("b", &id).await;
    room.leave("a", &id).await;
    room.join("c", &id).await;
    room.gateway.drain().await;
}

#[tokio::test]
async fn groups_belong_to_an_api_and_all_of_its_stages() {
    let room = Room::with(|settings| settings.another_api("other")).await;
    room.backend.skip("CONNECT");
    let mut client = room.gateway.connect("/_aws/execute-api/chat/prod").await;
    let id = room.backend.next("CONNECT").await.connection_id().to_owned();
    let call = async |method: &'static str, path: String, body: &'static str| {
        tidegate_testing::http(room.gateway.internal(), method, &path, &[], body.as_bytes()).await
    };
    let member = format!("@groups/a/connections/{id}");
    assert_eq!(call("PUT", format!("/_aws/execute-api/other/prod/{member}"), "").await.status, 410);
    assert_eq!(call("PUT", format!("/_aws/execute-api/chat/test/{member}"), "").await.status, 204);
    let other = call("POST", "/_aws/execute-api/other/prod/@groups/a".to_owned(), "no").await;
    assert_eq!(other.json(), delivered(0));
    let own = call("POST", "/_aws/execute-api/chat/prod/@groups/a".to_owned(), "yes").await;
    assert_eq!(own.json(), delivered(1));
    assert_eq!(client.next_text().await, "yes");
    room.gateway.drain().await;
}
