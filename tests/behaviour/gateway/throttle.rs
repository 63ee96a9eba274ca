//! Rate bounds of stages and routes.

use serde_json::Value;
use tidegate_testing::{Settings, TestBackend};

#[tokio::test]
async fn a_connect_beyond_the_rate_is_429() {
    let backend = TestBackend::start().await;
    let stage = "routeSettings: { $connect: { throttlingRateLimit: 0.001, throttlingBurstLimit: 2 } }";
    let gateway = Settings::aws_proxy(&backend).stage(stage).start().await;
    gateway.connect("/prod").await;
    gateway.connect("/prod").await;
    let response = gateway.handshake("/prod", &[]).await;
    assert_eq!(response.status, 429);
    assert_eq!(response.json()["message"], "Too Many Requests");
    assert_eq!(response.error_type(), None);
    assert_eq!(gateway.handshake("/test", &[]).await.status, 101, "another stage has buckets of its own");
    assert_eq!(backend.calls("CONNECT").len(), 3);
    assert_eq!(gateway.metric("tidegate_throttled_total").await, 1);
}

#[tokio::test]
async fn a_message_beyond_the_rate_gets_a_frame_and_the_socket_stays_open() {
    let backend = TestBackend::start().await;
    let stage = "routeSettings: { tell: { throttlingRateLimit: 0.001, throttlingBurstLimit: 1 } }";
    let gateway = Settings::aws_proxy(&backend).stage(stage).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    for _ in 0..2 {
        client.send(r#"{"action":"tell"}"#).await;
    }
    let frame: Value = client.next_json().await;
    assert_eq!(frame["message"], "Too Many Requests");
    assert_eq!(frame["connectionId"], *id);
    assert!(frame["requestId"].is_string());
    client.send("another route is not throttled").await;
    while backend.next("MESSAGE").await.event()["body"] != "another route is not throttled" {}
    assert_eq!(backend.calls("MESSAGE").len(), 2);
}

#[tokio::test]
async fn routes_without_settings_of_their_own_share_the_stages_bucket() {
    let backend = TestBackend::start().await;
    let stage = "defaultRouteSettings: { throttlingRateLimit: 0.001, throttlingBurstLimit: 3 }";
    let gateway = Settings::aws_proxy(&backend).stage(stage).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for message in [r#"{"action":"tell"}"#, "default", "one too many"] {
        client.send(message).await;
    }
    assert_eq!(client.next_json().await["message"], "Too Many Requests");
    assert_eq!(gateway.handshake("/prod", &[]).await.status, 429);
}
