//! A new configuration under open connections, in this process.

use tidegate_testing::{Gate, Reply, Settings, TestBackend, TestClient, TestGateway};

/// A client of the stage `test`, with its id.
async fn client_of_test(gateway: &TestGateway, backend: &TestBackend) -> (TestClient, String) {
    backend.skip("CONNECT");
    let client = gateway.connect("/test").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    (client, id)
}

#[tokio::test]
async fn the_next_message_of_an_open_socket_uses_the_new_routes() {
    let (old, new) = (TestBackend::start().await, TestBackend::start().await);
    let mut gateway = Settings::aws_proxy(&old).start().await;
    let (mut client, id) = gateway.client(&old).await;
    client.send(r#"{"action":"fresh"}"#).await;
    assert_eq!(old.next("MESSAGE").await.header("x-tidegate-route-key"), "$default");

    gateway.reload(&Settings::aws_proxy(&new).route("fresh: { target: integrations/backend }"));
    client.send(r#"{"action":"fresh"}"#).await;
    let call = new.next("MESSAGE").await;
    assert_eq!((call.header("x-tidegate-route-key"), call.connection_id()), ("fresh", &*id));
    client.close(Some((1000, ""))).await;
    new.next("DISCONNECT").await;
    assert_eq!(old.order(), ["CONNECT", "MESSAGE"]);
}

#[tokio::test]
async fn a_message_under_way_ends_by_the_configuration_that_it_met() {
    let backend = TestBackend::start().await;
    let mut gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    let gate = Gate::default();
    backend.answer("MESSAGE", Reply::body("two-way").held(&gate));
    client.send(r#"{"action":"ask"}"#).await;
    backend.next("MESSAGE").await;
    gateway.reload(&Settings::aws_proxy(&backend).routes("ask: { target: integrations/backend }"));
    gate.open();
    assert_eq!(client.next_text().await, "two-way");
    client.send("$default is gone").await;
    assert_eq!(client.next_json().await["message"], "Forbidden");
}

#[tokio::test]
async fn a_stage_that_is_taken_away_leaves_its_sockets_open_and_serves_nobody() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let mut gateway = settings.start().await;
    let mut client = gateway.connect("/test").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    gateway.reload(&settings.clone().stages(&["prod"]));
    client.send("x").await;
    assert_eq!(client.next_json().await["message"], "Forbidden");
    assert_eq!(gateway.handshake("/test", &[]).await.status, 403);
    assert_eq!(gateway.post(&id, "through another stage").await.status, 200);
    assert_eq!(client.next_text().await, "through another stage");
    client.close(None).await;
    let call = backend.next("DISCONNECT").await;
    assert_eq!((call.connection_id(), call.header("x-tidegate-stage")), (&*id, "test"));
    gateway.settled().await;
    gateway.drain().await;
}

#[tokio::test]
async fn a_client_whose_stage_api_or_route_was_taken_away_is_told_of_where_it_was_before() {
    let (old, new) = (TestBackend::start().await, TestBackend::start().await);
    let before = Settings::aws_proxy(&old).another_api("news");
    let without_route = "$connect: { target: integrations/backend }, $default: { target: integrations/backend }";
    for (what, target, after) in [
        ("stage", "/_aws/execute-api/chat/test", Settings::aws_proxy(&new).stages(&["prod"]).another_api("news")),
        ("API", "/_aws/execute-api/news/test", Settings::aws_proxy(&new)),
        ("route", "/_aws/execute-api/chat/test", Settings::aws_proxy(&new).routes(without_route).another_api("news")),
    ] {
        let mut gateway = before.start().await;
        let client = gateway.connect(target).await;
        let connect = old.next("CONNECT").await;
        gateway.reload(&after);
        // And it is gone for more than one reload.
        gateway.reload(&after);
        client.close(Some((4001, "bye"))).await;
        let call = old.next("DISCONNECT").await;
        assert_eq!(call.connection_id(), connect.connection_id(), "{what}");
        assert_eq!(call.closing(), (4001, "bye".to_owned()));
        for name in ["x-tidegate-api-id", "x-tidegate-stage", "x-tidegate-callback-url"] {
            assert_eq!(call.header(name), connect.header(name), "{what}");
        }
        gateway.settled().await;
        assert_eq!(gateway.metric("tidegate_disconnect_events_lost_total").await, 0);
        gateway.drain().await;
        assert_eq!(
            old.calls("DISCONNECT").iter().filter(|told| told.connection_id() == call.connection_id()).count(),
            1
        );
    }
    assert_eq!(new.order(), Vec::<String>::new());
}

#[tokio::test]
async fn a_stage_that_is_put_back_tells_of_all_its_clients() {
    let (old, new) = (TestBackend::start().await, TestBackend::start().await);
    let mut gateway = Settings::aws_proxy(&old).start().await;
    let (client, id) = client_of_test(&gateway, &old).await;
    gateway.reload(&Settings::aws_proxy(&old).stages(&["prod"]));
    gateway.reload(&Settings::aws_proxy(&new));
    client.close(None).await;
    assert_eq!(new.next("DISCONNECT").await.connection_id(), id);
    gateway.settled().await;
    assert!(old.calls("DISCONNECT").is_empty());
}

#[tokio::test]
async fn a_stage_that_is_put_back_without_a_route_tells_of_those_alone_who_came_before() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let untold = settings.clone().routes("$connect: { target: integrations/backend }");
    let mut gateway = settings.start().await;
    let (early, early_id) = client_of_test(&gateway, &backend).await;
    gateway.reload(&settings.clone().stages(&["prod"]));
    gateway.reload(&untold);
    let (late, _) = client_of_test(&gateway, &backend).await;
    late.close(None).await;
    gateway.settled().await;
    assert!(backend.calls("DISCONNECT").is_empty(), "it never had a route");
    gateway.reload(&untold.clone().stages(&["prod"]));
    early.close(None).await;
    assert_eq!(backend.next("DISCONNECT").await.connection_id(), early_id);
    gateway.settled().await;
    assert_eq!(gateway.metric("tidegate_disconnect_events_lost_total").await, 0);
}

#[tokio::test]
async fn an_event_that_waits_while_its_stage_is_taken_away_is_sent_on_to_the_same_place() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let mut gateway = settings.start().await;
    let (client, id) = client_of_test(&gateway, &backend).await;
    let gate = Gate::default();
    backend.answer("DISCONNECT", Reply::http(503, "").held(&gate));
    client.close(None).await;
    let first = backend.next("DISCONNECT").await;
    gateway.reload(&settings.clone().stages(&["prod"]));
    gate.open();
    let second = backend.next("DISCONNECT").await;
    assert_eq!((first.connection_id(), second.connection_id()), (&*id, &*id));
    assert_eq!(first.header("x-tidegate-request-id"), second.header("x-tidegate-request-id"));
    assert_eq!((first.uri.path(), first.header("x-tidegate-stage")), (second.uri.path(), "test"));
    gateway.settled().await;
}

#[tokio::test]
async fn new_limits_are_for_new_connections() {
    let backend = TestBackend::start().await;
    let mut gateway = Settings::aws_proxy(&backend).start().await;
    let (mut old, _) = gateway.client(&backend).await;
    gateway.reload(&Settings::aws_proxy(&backend).section("limits: { messageBytes: 10 }"));
    let (mut new, _) = gateway.client(&backend).await;
    old.send("longer than ten bytes").await;
    backend.next("MESSAGE").await;
    new.send("longer than ten bytes").await;
    assert_eq!(new.next_close().await.0, 1009);
}
