//! The AWS SDK for Rust against a running gateway.

use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::config::retry::RetryConfig;
use aws_sdk_apigatewaymanagement::config::{Config, Credentials, Region};
use aws_sdk_apigatewaymanagement::primitives::Blob;
use tidegate_testing::{Settings, TestBackend};

fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKID", "secret", None, None, "test"))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

#[tokio::test]
async fn the_sdk_posts_gets_and_deletes() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut socket = gateway.connect_with("/prod", &[("user-agent", "demo/1")]).await;
    let call = backend.next("CONNECT").await;
    let id = call.connection_id();
    for endpoint in [
        format!("http://{}/prod", gateway.public()),
        format!("http://{}/prod/", gateway.public()),
        format!("http://{}/prod", gateway.internal()),
        format!("http://{}/_aws/execute-api/chat/prod", gateway.internal()),
    ] {
        let sdk = client(&endpoint);
        sdk.post_to_connection().connection_id(id).data(Blob::new("hi")).send().await.unwrap();
        assert_eq!(socket.next_text().await, "hi");
        let info = sdk.get_connection().connection_id(id).send().await.unwrap();
        let identity = info.identity().unwrap();
        assert_eq!([identity.source_ip(), identity.user_agent()], [Some("127.0.0.1"), Some("demo/1")]);
        let connected_at = call.context()["connectedAt"].as_i64().unwrap();
        assert_eq!(info.connected_at().unwrap().to_millis().unwrap(), connected_at);
        assert!(info.last_active_at().unwrap().to_millis().unwrap() >= connected_at);
    }
    let sdk = client(&format!("http://{}/prod", gateway.public()));
    sdk.delete_connection().connection_id(id).send().await.unwrap();
    assert_eq!(socket.next_close().await, (1000, "Connection Closed Normally".to_owned()));
    backend.next("DISCONNECT").await;
    let error = sdk.post_to_connection().connection_id(id).data(Blob::new("hi")).send().await.unwrap_err();
    assert!(error.into_service_error().is_gone_exception());
    let error = sdk.get_connection().connection_id(id).send().await.unwrap_err();
    assert!(error.into_service_error().is_gone_exception());
    let error = sdk.delete_connection().connection_id(id).send().await.unwrap_err();
    assert!(error.into_service_error().is_gone_exception());
}

#[tokio::test]
async fn the_sdk_sees_403_and_413_for_what_they_are() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).internal("connectionsApi: OFF").start().await;
    let (mut socket, id) = gateway.client(&backend).await;
    let sdk = client(&format!("http://{}/prod", gateway.public()));
    let post = |bytes: usize| {
        let data = Blob::new(vec![b'x'; bytes]);
        sdk.post_to_connection().connection_id(&id).data(data).send()
    };
    post(131_072).await.unwrap();
    assert_eq!(socket.next_text().await.len(), 131_072);
    for bytes in [131_073, 5_000_000] {
        let error = post(bytes).await.unwrap_err();
        let status = error.raw_response().expect("an answer, not a lost connection").status().as_u16();
        assert_eq!(status, 413, "{bytes}");
    }
    let sdk = client(&format!("http://{}/prod", gateway.internal()));
    let error = sdk.get_connection().connection_id(&id).send().await.unwrap_err();
    assert!(error.into_service_error().is_forbidden_exception());
}
