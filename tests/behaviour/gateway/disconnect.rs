//! `$disconnect`: one event for each connection, until its backend has taken it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tidegate_testing::{Call, Gate, Reply, Settings, TestBackend, TestGateway, eventually};

/// All attempts have one id and are counted from 1.
fn expect_one_event(calls: &[Arc<Call>], attempts: usize) {
    assert_eq!(calls.len(), attempts);
    let ids: HashSet<&str> = calls.iter().map(|call| call.header("x-tidegate-request-id")).collect();
    assert_eq!(ids.len(), 1, "one event");
    for (call, attempt) in calls.iter().zip(1..) {
        assert_eq!(call.header("x-tidegate-attempt"), attempt.to_string());
        assert_eq!(call.closing(), calls[0].closing());
    }
}

async fn end_one(gateway: &TestGateway, backend: &TestBackend) {
    let (client, _) = gateway.client(backend).await;
    client.close(Some((1000, "bye"))).await;
}

#[tokio::test]
async fn an_answer_that_is_final_ends_the_matter() {
    for reply in [
        Reply::ok(),
        Reply::http(200, ""),
        Reply::http(200, "not JSON"),
        Reply::http(204, ""),
        Reply::json(&json!({"statusCode": 200, "body": {"a": 1}})),
        Reply::json(&json!({"statusCode": 404})),
        Reply::json(&json!({"statusCode": 400, "body": "no"})),
        Reply::http(302, "").header("location", "/"),
        Reply::Large(Some(4 * 1024 * 1024)),
    ] {
        let backend = TestBackend::start().await;
        let gateway = Settings::aws_proxy(&backend).start().await;
        backend.answer("DISCONNECT", reply.clone());
        end_one(&gateway, &backend).await;
        backend.next("DISCONNECT").await;
        gateway.settled().await;
        gateway.drain().await;
        assert_eq!(backend.calls("DISCONNECT").len(), 1, "{reply:?}");
    }
    for status in [200, 204, 302, 400, 404, 410] {
        let backend = TestBackend::start().await;
        let gateway = Settings::http_proxy(&backend).start().await;
        backend.answer("DISCONNECT", Reply::http(status, "whatever"));
        let client = gateway.connect("/prod").await;
        client.close(None).await;
        backend.next("DISCONNECT").await;
        gateway.settled().await;
        gateway.drain().await;
        assert_eq!(backend.calls("DISCONNECT").len(), 1, "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_final_is_followed_by_another_attempt() {
    let mut checks = Vec::new();
    for reply in [
        Reply::http(503, ""),
        Reply::http(500, ""),
        Reply::http(404, ""),
        Reply::http(400, ""),
        Reply::http(429, ""),
        Reply::json(&json!({"statusCode": 500})),
        Reply::json(&json!({"statusCode": 408})),
        Reply::json(&json!({"statusCode": 425})),
        Reply::json(&json!({"statusCode": 429})),
        Reply::json(&json!({"errorMessage": "boom"})),
        Reply::ok().header("x-amz-function-error", "Unhandled"),
        Reply::Close,
        Reply::Half,
        Reply::Raw(b"garbage\r\n\r\n"),
    ] {
        checks.push((reply, "AWS_PROXY"));
    }
    for status in [408, 425, 429, 500, 503] {
        checks.push((Reply::http(status, ""), "HTTP_PROXY"));
    }
    // Side by side: each waits for its second attempt.
    let checks = checks.into_iter().map(|(reply, integration_type)| async move {
        let backend = TestBackend::start().await;
        let gateway = Settings::of(&backend.url(), integration_type).start().await;
        backend.answer("DISCONNECT", reply.clone());
        let client = gateway.connect("/prod").await;
        client.close(Some((1000, "bye"))).await;
        backend.next("DISCONNECT").await;
        backend.next("DISCONNECT").await;
        gateway.settled().await;
        gateway.drain().await;
        let calls = backend.calls("DISCONNECT");
        assert_eq!(calls.len(), 2, "{reply:?}");
        let id = |call: &Call| call.header("x-tidegate-request-id").to_owned();
        assert_eq!(id(&calls[0]), id(&calls[1]), "{reply:?}");
        assert_eq!((calls[0].header("x-tidegate-attempt"), calls[1].header("x-tidegate-attempt")), ("1", "2"));
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn an_event_is_sent_with_one_id_until_it_is_taken() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).timeout_millis(200).start().await;
    backend.answer("DISCONNECT", Reply::http(503, ""));
    backend.answer("DISCONNECT", Reply::hang());
    end_one(&gateway, &backend).await;
    for _ in 0..3 {
        backend.next("DISCONNECT").await;
    }
    gateway.drain().await;
    expect_one_event(&backend.calls("DISCONNECT"), 3);
}

#[tokio::test]
async fn a_backend_that_was_away_learns_of_every_connection_when_it_comes_back() {
    // On an address of its own: no other test's socket can take the port meanwhile.
    let backend = TestBackend::start_at(SocketAddr::from(([127, 0, 0, 77], 0))).await;
    let address = backend.address();
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut clients = Vec::new();
    let mut ids = HashSet::new();
    for _ in 0..20 {
        let (client, id) = gateway.client(&backend).await;
        clients.push(client);
        ids.insert(id);
    }
    drop(backend);
    for client in clients {
        client.close(Some((1000, ""))).await;
    }
    eventually("all events wait", async || gateway.metric("tidegate_disconnect_events_pending").await == 20).await;
    let backend = TestBackend::start_at(address).await;
    gateway.settled().await;
    gateway.drain().await;
    let calls = backend.calls("DISCONNECT");
    let told: HashSet<String> = calls.iter().map(|call| call.connection_id().to_owned()).collect();
    assert_eq!((calls.len(), told), (20, ids));
    let events: HashSet<&str> = calls.iter().map(|call| call.header("x-tidegate-request-id")).collect();
    assert_eq!(events.len(), 20);
}

#[tokio::test]
async fn an_event_is_given_up_when_its_time_is_over() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("disconnect: { retrySeconds: 0 }").start().await;
    backend.answer("DISCONNECT", Reply::http(503, ""));
    end_one(&gateway, &backend).await;
    backend.next("DISCONNECT").await;
    gateway.settled().await;
    assert_eq!(gateway.metric("tidegate_disconnect_events_lost_total").await, 1);
    gateway.drain().await;
    assert_eq!(backend.calls("DISCONNECT").len(), 1);
}

#[tokio::test]
async fn without_a_disconnect_route_nothing_is_sent_and_nothing_is_left() {
    let backend = TestBackend::start().await;
    let routes = "$connect: { target: integrations/backend }";
    let gateway = Settings::aws_proxy(&backend).routes(routes).start().await;
    end_one(&gateway, &backend).await;
    gateway.settled().await;
    gateway.drain().await;
    assert_eq!(backend.order(), ["CONNECT"]);
}

#[tokio::test]
async fn no_more_events_are_in_flight_than_allowed() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("disconnect: { concurrency: 2 }").start().await;
    let gate = Gate::default();
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(gateway.client(&backend).await.0);
        backend.answer("DISCONNECT", Reply::ok().held(&gate));
    }
    for client in clients {
        client.close(None).await;
    }
    backend.next("DISCONNECT").await;
    backend.next("DISCONNECT").await;
    gate.open();
    gateway.drain().await;
    assert_eq!((backend.calls("DISCONNECT").len(), backend.in_flight_max()), (10, 2));
}

#[tokio::test]
async fn a_backend_that_is_away_keeps_no_other_backend_waiting() {
    let backend = TestBackend::start().await;
    let away = "away: { integrationType: AWS_PROXY, integrationUri: \"http://127.0.0.1:1/\"";
    let gateway = Settings::aws_proxy(&backend)
        .integration(format!("integrationUri: \"${{env:BACKEND}}/\" }}, {away}"))
        .routes("$connect: { target: integrations/backend }, $disconnect: { target: integrations/backend }")
        .another_api("news")
        .routes("$connect: { target: integrations/backend }, $disconnect: { target: integrations/away }")
        .start()
        .await;
    gateway.connect("/_aws/execute-api/chat/prod").await.close(None).await;
    for _ in 0..3 {
        gateway.connect("/_aws/execute-api/news/prod").await.close(None).await;
        assert_eq!(backend.next("DISCONNECT").await.header("x-tidegate-api-id"), "news");
    }
    eventually("one event is left", async || gateway.metric("tidegate_disconnect_events_pending").await == 1).await;
}
