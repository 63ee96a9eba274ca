//! The metrics whose names operators rely on.

use tidegate_testing::{Reply, Settings, TestBackend, http};

#[tokio::test]
async fn every_metric_with_a_fixed_name_is_there_with_its_labels() {
    let backend = TestBackend::start().await;
    let stage = "routeSettings: { tell: { throttlingRateLimit: 0.001, throttlingBurstLimit: 1 } }";
    let gateway = Settings::aws_proxy(&backend).stage(stage).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    client.send(r#"{"action":"tell"}"#).await;
    client.send(r#"{"action":"tell"}"#).await;
    client.next_text().await;
    backend.answer("MESSAGE", Reply::Close);
    client.send("x").await;
    client.next_text().await;
    assert_eq!(gateway.post(&id, "x").await.status, 200);
    let (gone, _) = gateway.client(&backend).await;
    gone.close(None).await;
    backend.next("DISCONNECT").await;
    gateway.settled().await;

    let page = http(gateway.internal(), "GET", "/metrics", &[], b"").await;
    assert!(page.header("content-type").unwrap().contains("text"));
    for (name, labels, value) in [
        ("tidegate_connections_open", "", "1"),
        ("tidegate_connects_total", "outcome=\"accepted\"", "2"),
        ("tidegate_disconnects_total", "cause=\"client\"", "1"),
        ("tidegate_messages_total", "route_key=\"tell\"", "2"),
        ("tidegate_messages_total", "route_key=\"$default\"", "1"),
        ("tidegate_pushes_total", "outcome=\"ok\",path=\"local\"", "1"),
        ("tidegate_integration_duration_seconds_count", "", "5"),
        ("tidegate_integration_errors_total", "kind=\"lost\"", "1"),
        ("tidegate_throttled_total", "level=\"route\"", "1"),
        ("tidegate_disconnect_events_pending", "", "0"),
    ] {
        let found = page.text().lines().any(|line| {
            line.starts_with(&format!("{name}{{"))
                && line.contains("api_id=\"chat\",stage=\"prod\"")
                && line.contains(labels)
                && line.ends_with(&format!("}} {value}"))
        });
        assert!(found, "{name} {labels} {value}\n{}", page.text());
    }
    assert!(page.text().contains("tidegate_registry_state{state=\"memory\"} 1"));
    assert!(!page.text().contains(&id), "labels come from the configuration alone");
}
