use std::net::SocketAddr;

use serde_json::Value;
use tidegate_testing::{Settings, TestBackend, TestClient, Tidegate, connect_from, raw_on};

use crate::shield::handshake;

/// The next line of the audit log.
async fn next(gateway: &mut Tidegate) -> Value {
    let line = gateway.process.line_with("\"audit\"").await;
    serde_json::from_str(&line).unwrap()
}

/// Asks from an address of its own, so that no connection before counts.
async fn ask(number: u8, address: SocketAddr, bytes: &[u8], status: u16) {
    let mut stream = connect_from(&format!("127.0.1.{number}"), address).await.unwrap();
    let answer = raw_on(&mut stream, bytes).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
}

#[tokio::test]
async fn deletes_and_all_that_is_refused_have_their_lines() {
    let backend = TestBackend::start().await.echoing();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.yaml");
    // `$connect` lets one client in.
    let settings = Settings::aws_proxy(&backend)
        .stages(&["prod"])
        .stage("routeSettings: { $connect: { throttlingRateLimit: 0.001, throttlingBurstLimit: 1 } }")
        .public("allowedHosts: [ chat.test, 127.0.0.1 ]")
        .section("limits: { perAddress: { connections: 1 } }")
        .api("allowOrigins: [ \"https://example.com\" ]");
    std::fs::write(&config, settings.text()).unwrap();
    let mut gateway = Tidegate::serve(&config, &[]).await;
    let public = gateway.public;

    ask(1, public, &handshake("evil.test", ""), 403).await;
    let line = next(&mut gateway).await;
    assert_eq!((&line["message"], &line["host"]), (&"Host refused".into(), &"evil.test".into()));

    ask(2, public, &handshake("chat.test", "Origin: https://evil.test\r\n"), 403).await;
    let line = next(&mut gateway).await;
    assert_eq!((&line["message"], &line["remote"]), (&"client refused".into(), &"127.0.1.2".into()));

    let client = TestClient::enter(public).await;
    let id = backend.last("CONNECT").await.context()["connectionId"].as_str().unwrap().to_owned();
    ask(3, public, &handshake("chat.test", ""), 429).await;
    let line = next(&mut gateway).await;
    assert_eq!((&line["message"], &line["api_id"]), (&"client turned away".into(), &"chat".into()));

    // An address with one connection too many: it is told so before anybody asks what it wants.
    let mut idle = connect_from("127.0.1.4", public).await.unwrap();
    let answer = raw_on(&mut idle, b"GET /prod HTTP/1.1\r\nHost: chat.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    ask(4, public, &handshake("chat.test", ""), 429).await;
    let line = next(&mut gateway).await;
    assert_eq!((&line["message"], &line["api_id"]), (&"client turned away".into(), &"-".into()));

    // Backends may have as many connections to the internal listener as they like.
    let internal = gateway.internal;
    let idle = [idle, connect_from("127.0.1.5", internal).await.unwrap()];
    let call = |method: &str, id: &str| format!("{method} /prod/@connections/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ask(5, internal, call("GET", "secret").as_bytes(), 400).await;
    let line = next(&mut gateway).await;
    assert_eq!((&line["status"], &line["connection_id"]), (&400.into(), &"-".into()));
    // Lookups that are answered are the everyday.
    ask(5, internal, call("GET", &id).as_bytes(), 200).await;
    ask(5, internal, call("DELETE", &id).as_bytes(), 204).await;
    let line = next(&mut gateway).await;
    assert_eq!((&line["message"], &line["method"]), (&"@connections call".into(), &"DELETE".into()));
    assert_eq!((&line["status"], &line["connection_id"]), (&204.into(), &id.as_str().into()));
    drop((client, idle));
}
