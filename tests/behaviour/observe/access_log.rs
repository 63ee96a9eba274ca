//! Access logs: one line for each event, in the format of its stage; and what becomes of lines that cannot be written.

use std::path::Path;

use serde_json::Value;
use tidegate_testing::{Process, Reply, Settings, TestBackend, eventually, http};

/// The variables that every line of an event has a value for, and some that only some have.
const FORMAT: &str = r#"{"api":"$context.apiId","stage":"$context.stage","type":"$context.eventType","route":"$context.routeKey","connection":"$context.connectionId","at":"$context.connectedAt","request":"$context.requestId","extended":"$context.extendedRequestId","time":"$context.requestTime","epoch":"$context.requestTimeEpoch","message":"$context.messageId","status":"$context.status","ip":"$context.identity.sourceIp","agent":"$context.identity.userAgent","domain":"$context.domainName","error":"$context.error.message","kind":"$context.error.responseType","backend":"$context.integration.status","latency":"$context.integrationLatency","length":"$context.responseLength","principal":"$context.authorizer.principalId","code":"$context.tidegate.closeCode","reason":"$context.tidegate.reason","trace":"$context.xrayTraceId"}"#;

/// Apache's common format, as AWS suggests it.
const CLF: &str = r#"$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime] "$context.eventType $context.routeKey $context.connectionId" $context.status $context.requestId"#;

fn settings(destination: &str, format: &str) -> String {
    let quoted = format.replace('\'', "''");
    format!("accessLogSettings: {{ destination: '{destination}', format: '{quoted}' }}")
}

async fn lines(path: &Path, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    eventually("lines", async || read().lines().count() >= count).await;
    read().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_kind_of_event_writes_one_line_with_its_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).stage(&settings(path.to_str().unwrap(), FORMAT)).start().await;
    let agent = r#"quote" and \ backslash"#;
    backend.skip("CONNECT");
    let mut client = gateway.connect_with("/prod", &[("user-agent", agent)]).await;
    let connect = backend.next("CONNECT").await;
    let id = connect.connection_id().to_owned();
    backend.answer("MESSAGE", Reply::body("pong"));
    client.send(r#"{"action":"ask"}"#).await;
    client.next_text().await;
    backend.answer("MESSAGE", Reply::Close);
    client.send("x").await;
    client.next_text().await;
    assert_eq!(gateway.post(&id, "hello").await.status, 200);
    assert_eq!(client.next_text().await, "hello");
    assert_eq!(gateway.call("GET", &id, b"").await.status, 200);
    client.close(Some((4000, "done"))).await;
    gateway.settled().await;

    let written = lines(&path, 6).await;
    println!("{}", written.join("\n"));
    let all: Vec<Value> = written.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(all.len(), 6);
    let find = |kind: &str, route: &str| {
        let line = all.iter().find(|line| line["type"] == kind && line["route"] == route);
        line.unwrap_or_else(|| panic!("no {kind} {route}")).clone()
    };
    let message = backend.calls("MESSAGE")[0].context();
    for (kind, route, values) in [
        ("CONNECT", "$connect", [("status", "200"), ("error", "-"), ("message", "-"), ("backend", "200")]),
        ("MESSAGE", "ask", [("status", "200"), ("length", "4"), ("code", "-"), ("reason", "-")]),
        (
            "MESSAGE",
            "$default",
            [
                ("status", "502"),
                ("error", "Internal server error"),
                ("kind", "INTEGRATION_FAILURE"),
                ("reason", "backendLost"),
            ],
        ),
        ("DISCONNECT", "$disconnect", [("status", "200"), ("code", "4000"), ("message", "-"), ("principal", "-")]),
        (
            "CONNECTION_API",
            "POST /@connections/{connectionId}",
            [("status", "200"), ("backend", "-"), ("latency", "-"), ("error", "-")],
        ),
        (
            "CONNECTION_API",
            "GET /@connections/{connectionId}",
            [("status", "200"), ("backend", "-"), ("latency", "-"), ("error", "-")],
        ),
    ] {
        let line = find(kind, route);
        for (key, value) in values {
            assert_eq!(line[key], value, "{kind} {route} {key}");
        }
        assert_eq!((&line["api"], &line["stage"]), (&"chat".into(), &"prod".into()));
        assert_eq!((&line["connection"], &line["ip"]), (&Value::from(&*id), &"127.0.0.1".into()));
        assert_eq!(line["request"], line["extended"]);
        assert!(line["trace"].as_str().unwrap().starts_with("Root=1-"));
        assert!(line["time"].as_str().unwrap().ends_with(" +0000"));
        if kind != "CONNECTION_API" {
            assert_eq!((&line["agent"], &line["domain"]), (&agent.into(), &gateway.public().to_string().into()));
        }
    }
    let ask = find("MESSAGE", "ask");
    for (key, name) in [("message", "messageId"), ("request", "requestId"), ("time", "requestTime")] {
        assert_eq!(ask[key], message[name], "{name}");
    }
    for (key, name) in [("epoch", "requestTimeEpoch"), ("at", "connectedAt")] {
        assert_eq!(ask[key], message[name].to_string(), "{name}");
    }
}

#[tokio::test]
async fn the_common_log_format_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).stage(&settings(path.to_str().unwrap(), CLF)).start().await;
    let (client, id) = gateway.client(&backend).await;
    client.close(None).await;
    gateway.settled().await;
    let written = lines(&path, 2).await;
    println!("{}", written.join("\n"));
    for (line, kind) in written.iter().zip(["CONNECT $connect", "DISCONNECT $disconnect"]) {
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(line.contains(&format!(" +0000] \"{kind} {id}\" 200 ")), "{line}");
    }
}

#[tokio::test]
async fn a_full_disk_delays_no_message_and_its_loss_is_counted() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).stage(&settings("/dev/full", CLF)).start().await;
    backend.answer_with(|_| Reply::body("pong"));
    let mut client = gateway.connect("/prod").await;
    for _ in 0..100 {
        client.send(r#"{"action":"ask"}"#).await;
        assert_eq!(client.next_text().await, "pong");
    }
    eventually("every line is counted as lost", async || {
        let page = http(gateway.internal(), "GET", "/metrics", &[], b"").await;
        page.text().contains("tidegate_access_log_lines_lost_total{cause=\"failed\"} 101")
    })
    .await;
}

#[tokio::test]
async fn on_hangup_the_file_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (log, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let backend = TestBackend::start().await;
    let text = Settings::aws_proxy(&backend).stage(&settings(log.to_str().unwrap(), CLF)).text();
    let file = folder.path().join("tidegate.yaml");
    std::fs::write(&file, text).unwrap();
    let mut process = Process::tidegate(&["serve", "--config", file.to_str().unwrap()], &[]);
    let (public, _) = process.addresses().await;
    let _first = tidegate_testing::TestClient::connect(public, "/prod", &[]).await.unwrap();
    lines(&log, 1).await;
    std::fs::rename(&log, &moved).unwrap();
    process.signal("HUP");
    process.stderr.log("the configuration was reloaded").await;
    eventually("the new file", async || {
        let _ = tidegate_testing::TestClient::connect(public, "/prod", &[]).await.unwrap();
        log.exists()
    })
    .await;
    assert!(!std::fs::read_to_string(&moved).unwrap().is_empty());
    lines(&log, 1).await;
}
