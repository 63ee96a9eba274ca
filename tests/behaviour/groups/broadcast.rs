//! Sending to everybody of a stage.

use crate::groups::room::{Room, delivered};

#[tokio::test]
async fn a_broadcast_reaches_everybody_of_its_stage_and_of_no_other() {
    let room = Room::start().await;
    let (mut ann, ann_id) = room.client().await;
    let (mut bob, _) = room.client().await;
    let mut elsewhere = room.gateway.connect("/test").await;
    assert_eq!(room.post("@broadcast", "all").await, delivered(2));
    assert_eq!((ann.next_text().await, bob.next_text().await), ("all".to_owned(), "all".to_owned()));
    let headers = [("x-tidegate-except", &*ann_id)];
    let response = room.call_with("POST", "@broadcast", &headers, b"but ann").await;
    assert_eq!(response.json(), delivered(1));
    assert_eq!(bob.next_text().await, "but ann");
    let other = tidegate_testing::http(room.gateway.internal(), "POST", "/test/@broadcast", &[], b"test").await;
    assert_eq!(other.json(), delivered(1));
    assert_eq!(elsewhere.next_text().await, "test");
    room.gateway.drain().await;
}
