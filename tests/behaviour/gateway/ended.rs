//! Ended connections: how many may wait for their `$disconnect`, and how much is kept of each.

use std::collections::HashSet;

use tidegate_testing::{
    Gate, HttpResponse, Process, RawClient, Reply, Settings, TestBackend, TestClient, TestGateway, eventually,
    handshake, http,
};

/// A backend that answers no `$disconnect` until the gate is open.
async fn holding() -> (TestBackend, Gate) {
    let (backend, gate) = (TestBackend::start().await, Gate::default());
    let held = gate.clone();
    backend.answer_with(move |call| match call.event_type() {
        "DISCONNECT" => Reply::ok().held(&held),
        _ => Reply::ok(),
    });
    (backend, gate)
}

/// Clients that come and go; their ids.
async fn come_and_go(gateway: &TestGateway, backend: &TestBackend, count: usize) -> HashSet<String> {
    let mut ids = HashSet::new();
    for _ in 0..count {
        let (client, id) = gateway.client(backend).await;
        client.close(Some((1000, ""))).await;
        ids.insert(id);
    }
    ids
}

async fn waiting(gateway: &TestGateway, count: i64) {
    let pending = async || gateway.metric("tidegate_disconnect_events_pending").await == count;
    eventually("so many events wait", pending).await;
}

fn expect_refused(response: &HttpResponse) {
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.header("retry-after").is_some(), "{response:?}");
}

/// Every one of these connections was told of with one event id, and no other.
fn expect_told(backend: &TestBackend, ids: &HashSet<String>) {
    let calls = backend.calls("DISCONNECT");
    let told: HashSet<String> = calls.iter().map(|call| call.connection_id().to_owned()).collect();
    let events: HashSet<&str> = calls.iter().map(|call| call.header("x-tidegate-request-id")).collect();
    assert_eq!((&told, events.len()), (ids, ids.len()));
}

async fn metrics(gateway: &TestGateway) -> String {
    http(gateway.internal(), "GET", "/metrics", &[], b"").await.text().to_owned()
}

#[tokio::test]
async fn while_as_many_wait_as_may_new_clients_are_refused_and_no_event_is_lost() {
    let (backend, gate) = holding().await;
    let limits = "limits: { disconnectBacklog: 5 }\ndisconnect: { concurrency: 1 }";
    let gateway = Settings::aws_proxy(&backend).section(limits).start().await;
    // They are here before it is full, and their events wait too.
    let (early, early_id) = gateway.client(&backend).await;
    let mut ids = come_and_go(&gateway, &backend, 5).await;
    waiting(&gateway, 5).await;
    let connects = backend.calls("CONNECT").len();
    for _ in 0..3 {
        expect_refused(&gateway.handshake("/prod", &[]).await);
    }
    assert_eq!(backend.calls("CONNECT").len(), connects, "no backend is asked about a client that is refused");
    let page = metrics(&gateway).await;
    assert!(page.contains("outcome=\"backlog\"} 3"), "{page}");
    assert!(page.contains("reason=\"backlogFull\"} 3"), "{page}");
    assert!(page.contains("tidegate_disconnect_backlog_ratio 1.0"), "{page}");
    early.close(Some((1000, ""))).await;
    ids.insert(early_id);
    waiting(&gateway, 6).await;
    expect_refused(&gateway.handshake("/prod", &[]).await);

    gate.open();
    gateway.settled().await;
    ids.extend(come_and_go(&gateway, &backend, 1).await);
    gateway.settled().await;
    gateway.drain().await;
    expect_told(&backend, &ids);
}

#[tokio::test]
async fn nothing_set_ten_times_the_connections_may_wait() {
    let (backend, gate) = holding().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { connections: 2 }").start().await;
    let ids = come_and_go(&gateway, &backend, 20).await;
    waiting(&gateway, 20).await;
    expect_refused(&gateway.handshake("/prod", &[]).await);
    gate.open();
    gateway.settled().await;
    gateway.drain().await;
    expect_told(&backend, &ids);
}

#[tokio::test]
async fn a_reload_changes_how_many_may_wait() {
    let (backend, _gate) = holding().await;
    let settings =
        |limit: u32| Settings::aws_proxy(&backend).section(format!("limits: {{ disconnectBacklog: {limit} }}"));
    let mut gateway = settings(2).start().await;
    come_and_go(&gateway, &backend, 2).await;
    waiting(&gateway, 2).await;
    expect_refused(&gateway.handshake("/prod", &[]).await);
    gateway.reload(&settings(3));
    come_and_go(&gateway, &backend, 1).await;
    waiting(&gateway, 3).await;
    expect_refused(&gateway.handshake("/prod", &[]).await);
    gateway.reload(&settings(1));
    expect_refused(&gateway.handshake("/prod", &[]).await);
}

#[tokio::test]
async fn connections_without_a_disconnect_route_wait_for_nothing() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).routes("$connect: { target: integrations/backend }");
    let gateway = settings.section("limits: { disconnectBacklog: 1 }").start().await;
    for _ in 0..5 {
        gateway.client(&backend).await.0.close(None).await;
        gateway.settled().await;
    }
}

#[tokio::test]
async fn the_operator_is_told_when_it_begins_and_when_it_ends() {
    let (backend, gate) = holding().await;
    let settings = Settings::aws_proxy(&backend).section("limits: { disconnectBacklog: 2 }");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, settings.text()).unwrap();
    let mut process = Process::tidegate(&["serve", "--config", path.to_str().unwrap(), "--log-format", "json"], &[]);
    let (public, _) = process.addresses().await;
    for _ in 0..2 {
        TestClient::connect(public, "/prod", &[]).await.unwrap().close(None).await;
    }
    let begins = process.stderr.log("the limit of ended connections that wait for their $disconnect is reached").await;
    assert_eq!((&begins["level"], &begins["limit"]), (&"ERROR".into(), &2.into()), "{begins}");
    for _ in 0..5 {
        let mut client = RawClient::connect(public).await;
        client.send(&handshake(public, "/prod", &[])).await;
        expect_refused(&client.response().await);
    }
    gate.open();
    let ends = process.stderr.log("fewer ended connections wait for their $disconnect").await;
    assert_eq!(ends["level"], "WARN", "{ends}");
    process.signal("TERM");
    process.exit().await;
    let lines = process.stderr.all().await;
    assert_eq!(lines.iter().filter(|line| line.contains("limits.disconnectBacklog")).count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn a_long_user_agent_is_kept_in_part_and_connect_has_all_of_it() {
    let backend = TestBackend::start().await;
    // Cut in the middle of a character it would be no text.
    let agent = format!("Mozilla/5.0 {}", "é".repeat(10_000));
    for (settings, kept) in [
        (Settings::aws_proxy(&backend), &agent[..512]),
        (Settings::aws_proxy(&backend).section("limits: { clientHeaderBytes: 19 }"), &agent[..18]),
    ] {
        let gateway = settings.start().await;
        let mut client = RawClient::connect(gateway.public()).await;
        client.send(&handshake(gateway.public(), "/prod", &[("User-Agent", &agent)])).await;
        assert_eq!(client.response().await.status, 101);
        let connect = backend.next("CONNECT").await;
        assert_eq!(connect.event()["headers"]["User-Agent"], agent);
        client.send(&tidegate_testing::frame(0x81, b"hi")).await;
        let message = backend.next("MESSAGE").await;
        assert_eq!(message.context()["identity"]["userAgent"], kept);
        let shown = gateway.call("GET", connect.connection_id(), b"").await;
        assert_eq!(shown.json()["identity"]["userAgent"], kept);
        client.reset();
        assert_eq!(backend.next("DISCONNECT").await.context()["identity"]["userAgent"], kept);
    }
}

#[tokio::test]
async fn a_plain_backend_gets_a_long_user_agent_whole_once_and_then_its_begin() {
    let backend = TestBackend::start().await;
    let gateway = Settings::http_proxy(&backend).start().await;
    let agent = "a".repeat(20_000);
    let mut client = RawClient::connect(gateway.public()).await;
    client.send(&handshake(gateway.public(), "/prod", &[("User-Agent", &agent)])).await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(backend.next("CONNECT").await.header("user-agent"), agent);
    client.send(&tidegate_testing::frame(0x81, b"hi")).await;
    assert_eq!(backend.next("MESSAGE").await.header("user-agent"), &agent[..512]);
    client.reset();
    assert_eq!(backend.next("DISCONNECT").await.header("user-agent"), &agent[..512]);
}

#[tokio::test]
async fn a_host_over_255_bytes_is_400() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    for (length, status) in [(255, 101), (256, 400), (20_000, 400)] {
        let host = "a".repeat(length);
        let response = gateway.handshake("/prod", &[("Host", &host)]).await;
        assert_eq!(response.status, status, "{length}");
        let call = http(gateway.internal(), "GET", "/prod/@connections/x", &[("Host", &host)], b"").await;
        // The internal listener answers for names of this machine alone.
        assert_eq!(call.status, if status == 400 { 400 } else { 403 }, "{length}");
        assert_eq!(call.text().contains("255 bytes"), status == 400, "{call:?}");
    }
}
