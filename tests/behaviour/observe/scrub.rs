//! A secret that a client or a backend puts anywhere is in no output of the gateway.

use serde_json::json;
use tidegate_testing::{Process, Reply, Settings, TestBackend, TestClient, eventually, http};

use crate::observe::collector::Collector;

const SECRET: &str = "s3cr3t-do-not-print";

/// Every variable that is not there to print what a client says of itself.
const FORMAT: &str = "$context.requestId $context.eventType $context.routeKey $context.status $context.error.message \
                      $context.integration.error $context.integration.status $context.identity.sourceIp \
                      $context.tidegate.reason $context.xrayTraceId $context.authorizer.principalId";

#[tokio::test]
async fn a_secret_is_in_no_log_metric_or_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (file, log) = (folder.path().join("tidegate.yaml"), folder.path().join("access.log"));
    let (backend, collector) = (TestBackend::start().await, Collector::start().await);
    let stage = format!(
        "accessLogSettings: {{ destination: '{}', format: '{FORMAT}' }}, \
         defaultRouteSettings: {{ loggingLevel: INFO, dataTraceEnabled: true, detailedMetricsEnabled: true }}",
        log.display()
    );
    let settings = Settings::aws_proxy(&backend).stage(&stage).section("explain: true").section(collector.section(""));
    std::fs::write(&file, settings.text()).unwrap();
    let mut process = Process::tidegate(&["serve", "--config", file.to_str().unwrap()], &[]);
    let (public, internal) = process.addresses().await;

    // In every place of a handshake.
    let headers = [
        ("authorization", "Bearer s3cr3t-do-not-print"),
        ("cookie", "session=s3cr3t-do-not-print"),
        ("x-api-key", "s3cr3t-do-not-print"),
        ("x-custom", "s3cr3t-do-not-print"),
        ("user-agent", "s3cr3t-do-not-print"),
        ("origin", "https://s3cr3t-do-not-print.example"),
        ("x-amzn-trace-id", "Root=s3cr3t-do-not-print"),
        ("traceparent", "s3cr3t-do-not-print"),
    ];
    let target = format!("/prod?token={SECRET}");
    let mut client = TestClient::connect(public, &target, &headers).await.unwrap();
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    // In refused handshakes, paths and signatures.
    for reply in [
        Reply::json(&json!({"statusCode": 403, "body": SECRET})),
        Reply::http(500, SECRET).header("x-secret", SECRET),
        Reply::Close,
    ] {
        backend.answer("CONNECT", reply);
        assert!(TestClient::connect(public, &target, &headers).await.is_err());
    }
    assert!(TestClient::connect(public, &format!("/{SECRET}"), &[]).await.is_err());
    let path = format!("/prod/@connections/{SECRET}?X-Amz-Signature={SECRET}");
    assert_eq!(http(public, "POST", &path, &[("authorization", SECRET)], b"x").await.status, 400);
    // In messages, and in every answer of a backend.
    let answers = [
        Reply::body(SECRET),
        Reply::http(200, SECRET),
        Reply::http(500, SECRET),
        Reply::json(&json!({"errorMessage": SECRET, "errorType": SECRET})),
        Reply::json(&json!({"statusCode": SECRET})),
        Reply::json(&json!({"statusCode": 200, "body": SECRET, "isBase64Encoded": true})),
        Reply::http(302, SECRET).header("location", SECRET),
    ];
    for answer in answers {
        backend.answer("MESSAGE", answer.header("x-secret", SECRET));
        client.send(&format!(r#"{{"action":"ask","password":"{SECRET}"}}"#)).await;
        client.next_text().await;
    }
    backend.answer("MESSAGE", Reply::body("pong"));
    client.send(&format!(r#"{{"action":"{SECRET}"}}"#)).await;
    client.next_text().await;
    let path = format!("/prod/@connections/{id}");
    assert_eq!(http(internal, "POST", &path, &[("x-secret", SECRET)], SECRET.as_bytes()).await.status, 200);
    assert_eq!(client.next_text().await, SECRET);
    let pages = [
        http(internal, "GET", "/metrics", &[], b"").await.text().to_owned(),
        http(internal, "GET", "/state", &[], b"").await.text().to_owned(),
    ];
    client.close(Some((4000, SECRET))).await;
    backend.next("DISCONNECT").await;
    // A machine without time may end a process before its last lines are out.
    eventually("lines and spans are out", async || {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        lines.contains("MESSAGE ask") && format!("{:?}", collector.spans()).contains("message")
    })
    .await;
    process.signal("TERM");
    process.exit().await;

    let stderr = process.stderr.all().await.join("\n");
    let access_log = std::fs::read_to_string(&log).unwrap();
    let spans = format!("{:?}", collector.spans());
    assert!(stderr.contains("an event is done") && stderr.contains("an event failed"), "{stderr}");
    for (name, text) in [
        ("log", &stderr),
        ("access log", &access_log),
        ("metrics", &pages[0]),
        ("state", &pages[1]),
        ("traces", &spans),
    ] {
        assert!(!text.contains(SECRET), "in the {name}: {text}");
    }
}
