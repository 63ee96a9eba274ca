//! A new configuration under open connections, in this process.

use crate::support::{Gate, Reply, Settings, TestBackend};

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
    gateway.reload(&settings.clone().without_stage("test"));
    client.send("x").await;
    assert_eq!(client.next_json().await["message"], "Forbidden");
    assert_eq!(gateway.handshake("/test", &[]).await.status, 403);
    assert_eq!(gateway.post(&id, "through another stage").await.status, 200);
    assert_eq!(client.next_text().await, "through another stage");
    client.close(None).await;
    gateway.settled().await;
    gateway.drain().await;
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
