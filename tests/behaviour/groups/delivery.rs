//! Delivery of messages to groups: order, slow members, full buffers, and what operators see.

use std::time::Duration;

use serde_json::json;
use tidegate_testing::{RawClient, eventually, within};
use tokio::time::Instant;

use crate::groups::room::{Room, delivered};

#[tokio::test]
async fn posts_on_one_http_connection_reach_every_member_in_their_order() {
    let room = Room::start().await;
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(room.member("a").await.0);
    }
    let address = room.gateway.internal();
    let mut http = RawClient::connect(address).await;
    let post = |number: usize| {
        let body = number.to_string();
        format!("POST /prod/@groups/a HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    // All at once: the gateway has them before it has answered the first.
    let all: String = (0..100).map(post).collect();
    http.send(all.as_bytes()).await;
    for _ in 0..100 {
        assert_eq!(http.response().await.json(), delivered(5));
    }
    for member in &mut members {
        for number in 0..100 {
            assert_eq!(member.next_text().await, number.to_string());
        }
    }
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_member_that_reads_nothing_is_pending_after_two_seconds_and_delays_nobody() {
    let room = Room::with(|settings| {
        settings.section(
            "limits: { messageBytes: 1048576, sendBufferBytes: 67108864, slowClientTimeoutSeconds: 60 }\n\
             drain: { graceMillis: 2000 }",
        )
    })
    .await;
    let _slow = deaf_member(&room).await;
    let (mut quick, _) = room.member("a").await;
    let body = "x".repeat(1024 * 1024);
    let mut pending = 0;
    // Sockets hold some of it; at last the slow one holds no more.
    for _ in 0..32 {
        let (reading, report) = tokio::join!(quick.next_text(), async {
            let started = Instant::now();
            (room.post("@groups/a", &body).await, started.elapsed())
        });
        assert_eq!(reading.len(), body.len());
        if report.0["pending"] == 1 {
            assert_eq!(report.0["delivered"], 1, "{report:?}");
            assert!(report.1 >= Duration::from_secs(2), "{report:?}");
            pending += 1;
            break;
        }
        assert_eq!(report.0, delivered(2));
    }
    assert_eq!(pending, 1, "the socket took everything");
    // While one post waits for the slow one, the quick one has its message.
    let mut waiting = Box::pin(room.post("@groups/a", "next"));
    let text = tokio::select! {
        biased;
        text = quick.next_text() => text,
        report = &mut waiting => panic!("{report} before the quick one heard"),
    };
    let report = waiting.await;
    assert_eq!((text, &report["pending"]), ("next".to_owned(), &json!(1)));
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_member_whose_buffer_is_full_is_counted_and_the_rest_hear() {
    let room = Room::with(|settings| {
        settings.section(
            "limits: { messageBytes: 1048576, sendBufferBytes: 1048576, slowClientTimeoutSeconds: 60 }\n\
             drain: { graceMillis: 2000 }",
        )
    })
    .await;
    let _slow = deaf_member(&room).await;
    let body = "x".repeat(1024 * 1024);
    within("the buffer is full", async { while room.post("@groups/a", &body).await["full"] == 0 {} }).await;
    let (mut quick, _) = room.member("a").await;
    let report = room.post("@groups/a", &body).await;
    assert_eq!((&report["delivered"], &report["full"]), (&json!(1), &json!(1)));
    assert_eq!(quick.next_text().await.len(), body.len());
    room.gateway.drain().await;
}

#[tokio::test]
async fn a_message_to_many_is_counted_by_what_became_of_it() {
    let room = Room::start().await;
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(room.member("a").await.0);
    }
    assert_eq!(room.post("@groups/a", "12345").await, delivered(3));
    assert_eq!(room.gateway.metric("tidegate_fan_out_deliveries_total").await, 3);
    assert_eq!(room.gateway.metric("tidegate_fan_out_duration_seconds_count").await, 1);
    assert_eq!(room.gateway.metric("tidegate_group_memberships").await, 3);
    assert_eq!(room.gateway.metric("tidegate_message_bytes_total").await, 15);
    drop(members);
    eventually("all have left", async || room.gateway.metric("tidegate_group_memberships").await == 0).await;
    room.gateway.drain().await;
}

/// A member of group `a` that never reads.
async fn deaf_member(room: &Room) -> RawClient {
    room.backend.skip("CONNECT");
    let client = RawClient::upgrade(room.gateway.public(), "/prod").await;
    let id = room.backend.next("CONNECT").await.connection_id().to_owned();
    room.join("a", &id).await;
    client
}
