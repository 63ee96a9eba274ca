//! Every metric is moved by its cause.

use tidegate_testing::{RawClient, Reply, Settings, TestBackend, TestGateway, eventually, http};

use crate::observe::programs::promtool;

async fn page(gateway: &TestGateway) -> String {
    http(gateway.internal(), "GET", "/metrics", &[], b"").await.text().to_owned()
}

/// The value of the one series with this name and these parts of labels.
fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let lines = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let mut lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    let found = lines.next()?.rsplit(' ').next()?.parse().ok();
    assert_eq!(lines.next(), None, "{name} {labels:?}");
    found
}

#[tokio::test]
async fn every_metric_is_moved_by_its_cause_and_promtool_is_content() {
    let backend = TestBackend::start().await;
    let stage = "routeSettings: { tell: { throttlingRateLimit: 0.001, throttlingBurstLimit: 1 }, \
                 ask: { detailedMetricsEnabled: true } }";
    let mut gateway = Settings::aws_proxy(&backend).stage(stage).start().await;
    let before = page(&gateway).await;
    let (mut client, id) = gateway.client(&backend).await;
    client.send(r#"{"action":"tell"}"#).await;
    backend.next("MESSAGE").await;
    client.send(r#"{"action":"tell"}"#).await;
    assert!(client.next_text().await.contains("Too Many Requests"));
    backend.answer("MESSAGE", Reply::body("pong"));
    client.send(r#"{"action":"ask"}"#).await;
    client.next_text().await;
    backend.answer("MESSAGE", Reply::json(&serde_json::json!({"statusCode": 500, "body": "x"})));
    client.send(r#"{"action":"ask"}"#).await;
    client.next_text().await;
    backend.answer("MESSAGE", Reply::Close);
    client.send("not JSON").await;
    client.next_text().await;
    assert_eq!(gateway.post(&id, "12345").await.status, 200);
    assert_eq!(gateway.post("AAAAAAAAAAAAAAAAAAA=", "x").await.status, 410);
    backend.answer("CONNECT", Reply::json(&serde_json::json!({"statusCode": 401})));
    assert!(gateway.try_connect("/prod", &[]).await.is_err());
    assert_eq!(gateway.handshake("/nowhere", &[]).await.status, 403);
    let (leaver, _) = gateway.client(&backend).await;
    leaver.close(Some((4321, "bye"))).await;
    gateway.settled().await;
    gateway.reload(&Settings::aws_proxy(&backend).stage(stage));

    let page = page(&gateway).await;
    let prod = "api_id=\"chat\",stage=\"prod\"";
    for (name, labels, expected) in [
        ("tidegate_connections_open", "", 1.0),
        ("tidegate_connects_total", "outcome=\"accepted\"", 2.0),
        ("tidegate_connects_total", "outcome=\"refused\"", 1.0),
        ("tidegate_disconnects_total", "cause=\"client\"", 1.0),
        ("tidegate_disconnect_codes_total", "code=\"4xxx\"", 1.0),
        ("tidegate_disconnect_events_pending", "", 0.0),
        ("tidegate_messages_total", "route_key=\"tell\"", 2.0),
        ("tidegate_messages_total", "route_key=\"ask\"", 2.0),
        ("tidegate_messages_total", "route_key=\"$default\"", 1.0),
        ("tidegate_message_bytes_total", "direction=\"in\"", 4.0 * 17.0 - 2.0 + 8.0),
        ("tidegate_message_bytes_total", "direction=\"out\"", 4.0 + 1.0 + 5.0),
        ("tidegate_dispatches_in_flight", "", 0.0),
        ("tidegate_pushes_total", "outcome=\"ok\",path=\"local\"", 1.0),
        ("tidegate_pushes_total", "outcome=\"gone\",path=\"local\"", 1.0),
        ("tidegate_throttled_total", "level=\"route\"", 1.0),
        ("tidegate_reasons_total", "reason=\"throttled\"", 1.0),
        ("tidegate_reasons_total", "reason=\"backendLost\"", 1.0),
        ("tidegate_reasons_total", "reason=\"backendRefused\"", 1.0),
        ("tidegate_reasons_total", "reason=\"connectionGone\"", 1.0),
        ("tidegate_integration_duration_seconds_count", "", 8.0),
        ("tidegate_integration_errors_total", "kind=\"lost\"", 1.0),
        ("tidegate_aws_connect_count_total", "route_key=\"\"", 3.0),
        ("tidegate_aws_message_count_total", "route_key=\"ask\"", 4.0),
        ("tidegate_aws_integration_error_total", "route_key=\"ask\",class=\"5xx\"", 1.0),
        ("tidegate_aws_integration_error_total", "route_key=\"\",class=\"4xx\"", 1.0),
        ("tidegate_aws_client_error_total", "route_key=\"\"", 1.0),
        ("tidegate_aws_execution_error_total", "route_key=\"\"", 1.0),
        ("tidegate_aws_integration_latency_seconds_count", "route_key=\"ask\"", 2.0),
    ] {
        assert_eq!(value(&page, name, &[prod, labels]), Some(expected), "{name} {labels}\n{page}");
    }
    for (name, labels, expected) in [
        ("tidegate_reasons_total", "reason=\"unknownStage\"", 1.0),
        ("tidegate_reloads_total", "outcome=\"ok\"", 1.0),
        ("tidegate_registry_state", "state=\"memory\"", 1.0),
        ("tidegate_send_buffer_bytes", "", 0.0),
        ("tidegate_send_buffer_largest_bytes", "", 0.0),
        ("tidegate_build_info", "version=", 1.0),
    ] {
        assert_eq!(value(&page, name, &[labels]), Some(expected), "{name} {labels}\n{page}");
    }
    let of_backend = format!("backend=\"{}\"", backend.url());
    for name in ["tidegate_backend_connections", "tidegate_backend_connections_idle", "tidegate_backend_calls_waiting"]
    {
        assert!(value(&page, name, &[&of_backend]).is_some(), "{name}\n{page}");
    }
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_threads", "process_start_time_seconds"] {
        assert!(value(&page, name, &[]).is_some_and(|value| value > 0.0), "{name}");
    }
    let cpu = |page: &str| value(page, "process_cpu_seconds_total", &[]).expect("a value");
    assert!(cpu(&page) >= cpu(&before));
    assert!(!page.contains("# EOF"));
    promtool(&["check", "metrics"], &page);
}

#[tokio::test]
async fn what_waits_is_shown_while_it_waits() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    let gate = tidegate_testing::Gate::default();
    backend.answer("MESSAGE", Reply::Held(gate.clone(), Box::new(Reply::ok())));
    client.send(r#"{"action":"tell"}"#).await;
    eventually("a dispatch in flight", async || {
        value(&page(&gateway).await, "tidegate_dispatches_in_flight", &["prod"]) == Some(1.0)
    })
    .await;
    gate.open();
    eventually("no dispatch in flight", async || {
        value(&page(&gateway).await, "tidegate_dispatches_in_flight", &["prod"]) == Some(0.0)
    })
    .await;

    // A client that reads nothing: its buffer fills.
    let slow = RawClient::upgrade(gateway.public(), "/prod").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    let data = vec![b'a'; 128 * 1024];
    let posts = async { futures_util::future::join_all((0..64).map(|_| gateway.call("POST", &id, &data))).await };
    tokio::select! {
        _ = posts => {}
        () = eventually("bytes that wait", async || {
            value(&page(&gateway).await, "tidegate_send_buffer_largest_bytes", &[]).is_some_and(|bytes| bytes > 100_000.0)
        }) => {}
    }
    drop(slow);
}

#[tokio::test]
async fn prometheus_gets_open_metrics_if_it_asks_for_it() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
    let page = http(gateway.internal(), "GET", "/metrics", &accept, b"").await;
    assert_eq!(page.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(page.text().ends_with("# EOF\n"));
    let page = http(gateway.internal(), "GET", "/metrics", &[], b"").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[tokio::test]
async fn a_scrape_during_a_reload_is_whole() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let mut gateway = settings.start().await;
    for _ in 0..20 {
        let internal = gateway.internal();
        let scrape = tidegate_testing::spawn(async move { http(internal, "GET", "/metrics", &[], b"").await });
        gateway.reload(&settings);
        assert!(scrape.await.unwrap().text().contains("tidegate_registry_state{state=\"memory\"} 1"));
    }
}
