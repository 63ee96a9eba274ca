//! Many targets, and many messages, in one call.

use serde_json::{Value, json};
use tidegate_testing::{HttpResponse, Reply};

use crate::groups::membership::NOBODY;
use crate::groups::room::Room;

fn lines(response: &HttpResponse) -> Vec<Value> {
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn reached(delivered: usize, gone: &[&str]) -> Value {
    json!({
        "delivered": delivered, "gone": gone.len(), "full": 0, "pending": 0, "unreachableNodes": 0,
        "goneConnections": gone
    })
}

#[tokio::test]
async fn who_is_named_in_many_ways_gets_it_once() {
    let room = Room::start().await;
    room.backend.answer("CONNECT", Reply::json(&json!({ "statusCode": 200, "tidegate": { "user": "ann" } })));
    let (mut ann, ann_id) = room.member("a").await;
    room.join("b", &ann_id).await;
    let (mut bob, bob_id) = room.member("a").await;
    let (mut eve, eve_id) = room.member("a").await;
    let body = json!({
        "targets": { "connections": [ann_id, bob_id, NOBODY, NOBODY], "groups": ["a", "b", "a"], "users": ["ann", "nobody"] },
        "except": [eve_id],
        "data": "once",
    });
    assert_eq!(room.post("@send", body.to_string()).await, reached(2, &[NOBODY]));
    assert_eq!(room.post("@broadcast", "next").await["delivered"], 3);
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.next_text().await, "once");
        assert_eq!(client.next_text().await, "next");
    }
    assert_eq!(eve.next_text().await, "next");
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_byte_order_mark_and_halves_of_surrogate_pairs_do_not_spoil_what_is_pushed() {
    let room = Room::start().await;
    let (mut ann, ann_id) = room.member("a").await;
    let body = "\u{feff}{\"group\":\"a\",\"data\":\"cut \\ud83d\"}\n{\"group\":\"a\",\"data\":\"\\ud83d\\ude00\"}";
    let response = room.call("POST", "@send", body.as_bytes()).await;
    assert_eq!((response.status, lines(&response)), (200, vec![reached(1, &[]), reached(1, &[])]));
    assert_eq!((ann.next_text().await, ann.next_text().await), ("cut \u{fffd}".to_owned(), "😀".to_owned()));

    let body = format!("\u{feff}{{\"connections\":[\"{ann_id}\"]}}");
    assert_eq!(room.call("PUT", "@groups/b/connections", body.as_bytes()).await.json()["changed"], 1);
    let answer = r#"{"statusCode":200,"tidegate":{"send":[{"group":"b","data":"\ude00 cut"}]}}"#;
    room.backend.answer("MESSAGE", Reply::http(200, answer));
    ann.send("x").await;
    assert_eq!(ann.next_text().await, "\u{fffd} cut");
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_batch_is_json_lines_and_is_sent_in_its_order() {
    let room = Room::start().await;
    let (mut ann, ann_id) = room.member("a").await;
    let (mut bob, _) = room.member("a").await;
    let batch = [
        json!({ "group": "a", "data": "1" }),
        json!({ "connection": ann_id, "data": "2" }),
        json!({ "targets": { "connections": [NOBODY] }, "data": "3" }),
        json!({ "group": "a", "data": "4", "except": [ann_id] }),
    ];
    let body: String = batch.iter().map(|line| format!("{line}\n")).collect();
    let response = room.call("POST", "@send", body.as_bytes()).await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(lines(&response), [reached(2, &[]), reached(1, &[]), reached(0, &[NOBODY]), reached(1, &[])]);
    assert_eq!((ann.next_text().await, ann.next_text().await), ("1".to_owned(), "2".to_owned()));
    assert_eq!((bob.next_text().await, bob.next_text().await), ("1".to_owned(), "4".to_owned()));
    let one = json!({ "group": "a", "data": "5" }).to_string();
    let headers = [("content-type", "application/x-ndjson; charset=utf-8")];
    let response = room.call_with("POST", "@send", &headers, one.as_bytes()).await;
    assert_eq!(lines(&response), [reached(2, &[])]);
    room.gateway.drain().await;
}

#[tokio::test]
async fn nothing_is_sent_of_a_batch_with_a_mistake() {
    let room = Room::start().await;
    let (mut client, _) = room.member("a").await;
    let body = "{\"group\":\"a\",\"data\":\"1\"}\n{\"group\":\"a b\",\"data\":\"2\"}\n";
    let response = room.call("POST", "@send", body.as_bytes()).await;
    assert_eq!(response.status, 400);
    assert!(response.text().contains("message 2: a group is named by"), "{response:?}");
    assert_eq!(room.post("@groups/a", "only this").await["delivered"], 1);
    assert_eq!(client.next_text().await, "only this");
    room.gateway.drain().await;
}

#[tokio::test]
async fn data_are_text_or_binary_and_may_be_base64() {
    let room = Room::start().await;
    let (mut client, _) = room.member("a").await;
    let body = json!({ "group": "a", "data": "AP8=", "isBase64Encoded": true, "dataType": "binary" });
    assert_eq!(room.post("@send", body.to_string()).await, reached(1, &[]));
    assert_eq!(client.next_message().await.into_data(), [0, 255][..]);
    let headers = [("x-tidegate-data-type", "binary")];
    let body = json!({ "group": "a", "data": "plain" }).to_string();
    assert_eq!(room.call_with("POST", "@send", &headers, body.as_bytes()).await.status, 200);
    assert!(client.next_message().await.is_binary());
    assert_eq!(room.call_with("POST", "@groups/a", &headers, b"\0\xff").await.status, 200);
    assert_eq!(client.next_message().await.into_data(), [0, 255][..]);
    room.gateway.drain().await;
}

#[tokio::test]
async fn unknown_ids_among_thousands_are_counted_and_named() {
    let room = Room::start().await;
    let (mut client, id) = room.client().await;
    let mut ids: Vec<String> = (0..3000_u32)
        .map(|number| {
            let mut bytes = [0; tidegate_core::id::CONNECTION_ID_BYTES];
            bytes[10..].copy_from_slice(&number.to_be_bytes());
            tidegate_core::id::ConnectionId::from_bytes(bytes).to_string()
        })
        .collect();
    ids.insert(1234, id.clone());
    let body = json!({ "targets": { "connections": ids }, "data": "found" });
    let report = room.post("@send", body.to_string()).await;
    assert_eq!((&report["delivered"], &report["gone"]), (&json!(1), &json!(3000)));
    let gone = report["goneConnections"].as_array().unwrap();
    assert_eq!((gone.len(), gone.contains(&json!(id))), (3000, false));
    assert_eq!(client.next_text().await, "found");
    room.gateway.drain().await;
}
