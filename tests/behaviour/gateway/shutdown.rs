//! The end of a node, in this process. `process.rs` has the signals.

use std::time::Duration;

use tidegate_testing::{Gate, RawClient, Reply, Settings, TestBackend, eventually, handshake, http, spawn, within};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_drain_tells_clients_and_backends_and_then_ends() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(gateway.client(&backend).await.0);
    }
    let (public, internal) = (gateway.public(), gateway.internal());
    let drain = spawn(gateway.drain());
    for client in &mut clients {
        assert_eq!(client.next_close().await, (1001, "Going away".to_owned()));
    }
    within("the drain", drain).await.unwrap();
    assert_eq!(backend.calls("DISCONNECT").len(), 5);
    for call in backend.calls("DISCONNECT") {
        assert_eq!(call.closing(), (1001, "Going away".to_owned()));
    }
    for address in [public, internal] {
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "{address} is closed");
    }
}

#[tokio::test]
async fn while_a_node_drains_it_is_alive_but_not_ready_and_takes_no_clients() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let gate = Gate::default();
    backend.answer("DISCONNECT", Reply::ok().held(&gate));
    let (mut client, _) = gateway.client(&backend).await;
    // A connection that is there already may ask for an upgrade, and is told no.
    let mut late = RawClient::connect(gateway.public()).await;
    late.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(late.response().await.status, 403);
    let (public, internal) = (gateway.public(), gateway.internal());
    let drain = spawn(gateway.drain());
    assert_eq!(client.next_close().await.0, 1001);
    backend.next("DISCONNECT").await;

    let probe = async |target| http(internal, "GET", target, &[], b"").await.status;
    assert_eq!((probe("/readyz").await, probe("/healthz").await, probe("/metrics").await), (503, 200, 200));
    late.send(&handshake(public, "/prod", &[])).await;
    let response = late.response().await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(response.error_type(), Some("ServiceUnavailableException"));
    eventually("the public listener is closed", async || tokio::net::TcpStream::connect(public).await.is_err()).await;
    assert!(!drain.is_finished(), "it waits for the backend");
    gate.open();
    within("the drain", drain).await.unwrap();
    assert_eq!(backend.calls("CONNECT").len(), 1);
}

#[tokio::test]
async fn a_client_that_is_let_in_during_a_drain_is_closed_and_reported() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let gate = Gate::default();
    backend.answer("CONNECT", Reply::ok().held(&gate));
    let mut client = RawClient::connect(gateway.public()).await;
    client.send(&handshake(gateway.public(), "/prod", &[])).await;
    backend.next("CONNECT").await;
    let internal = gateway.internal();
    let drain = spawn(gateway.drain());
    eventually("it drains", async || http(internal, "GET", "/readyz", &[], b"").await.status == 503).await;
    gate.open();
    within("the drain", drain).await.unwrap();
    assert_eq!(backend.order(), ["CONNECT", "DISCONNECT"]);
    let answer = client.response().await;
    if answer.status == 101 {
        assert_eq!(client.next_close().await.0, 1001);
    } else {
        assert_eq!(answer.status, 503);
    }
}

#[tokio::test]
async fn messages_under_way_are_finished_before_the_end() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    let gate = Gate::default();
    backend.answer("MESSAGE", Reply::ok().held(&gate));
    client.send("x").await;
    backend.next("MESSAGE").await;
    let drain = spawn(gateway.drain());
    assert_eq!(client.next_close().await.0, 1001);
    assert_eq!(backend.order(), ["CONNECT", "MESSAGE"]);
    gate.open();
    within("the drain", drain).await.unwrap();
    assert_eq!(backend.order(), ["CONNECT", "MESSAGE", "DISCONNECT"]);
}

#[tokio::test]
async fn a_drain_ends_with_its_grace_period_and_at_once_when_told() {
    for hurry in [false, true] {
        let backend = TestBackend::start().await;
        let grace = if hurry { 60_000 } else { 1000 };
        let gateway = Settings::aws_proxy(&backend).section(format!("drain: {{ graceMillis: {grace} }}")).start().await;
        backend.answer("DISCONNECT", Reply::hang());
        let (mut client, _) = gateway.client(&backend).await;
        let start = tokio::time::Instant::now();
        let token = CancellationToken::new();
        let drain = spawn(gateway.gateway.drain(token.clone()));
        assert_eq!(client.next_close().await.0, 1001);
        backend.next("DISCONNECT").await;
        if hurry {
            token.cancel();
        }
        within("the drain", drain).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
