//! A whole gateway whose registry has a Redis replica: readiness, new connections, what operators get over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate::app::Gateway;
use tidegate::config::{self, Config};
use tidegate_core::id::ConnectionId;
use tidegate_core::request_context::Connection;
use tidegate_testing::{RedisServer, RegistryNode, TestClient, eventually, http};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

/// A route for messages, which no test sends: connecting needs no backend.
const NOWHERE: &str = "\
    \x20   integrations: { nowhere: { integrationType: AWS_PROXY, integrationUri: 'http://127.0.0.1:9/' } }\n\
    \x20   routes: { never: { target: integrations/nowhere } }\n";

/// An API that needs no backend.
fn configuration(server: &RedisServer, when_unavailable: &str) -> Config {
    let url = server.url();
    let text = format!(
        "listeners:\n  public: {{ address: '127.0.0.1:0' }}\n  internal: {{ address: '127.0.0.1:0' }}\n\
         registry: {{ type: redis, url: '{url}', keyPrefix: t, whenUnavailable: {when_unavailable} }}\n\
         cluster: {{ address: '127.0.0.1:0', secret: a secret of sixteen, leaseMillis: 3000 }}\n\
         apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n{NOWHERE}    stages: {{ prod: {{}} }}\n"
    );
    config::load(&text, &|_| None).expect("a configuration")
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = http(address, "GET", path, &[], b"").await;
    (response.status, response.text().to_owned())
}

/// Connects a client; the status if it is refused.
async fn connect(gateway: &Gateway) -> Result<TestClient, u16> {
    match TestClient::connect(gateway.public_address(), "/prod", &[]).await {
        Ok(client) => Ok(client),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn readiness_tells_how_it_stands_with_redis() {
    let mut server = RedisServer::stopped(&[]);
    let gateway = Gateway::builder(configuration(&server, "accept")).start().await.expect("a gateway");
    let internal = gateway.internal_address();
    let ready = |wanted: u16, part: &'static str| {
        eventually(part, async move || {
            let (status, body) = get(internal, "/readyz").await;
            status == wanted && body.contains(part)
        })
    };
    ready(503, ": nothing listens").await;
    assert_eq!(connect(&gateway).await.err(), Some(503), "not registered yet");
    assert_eq!(get(internal, "/nodes").await.0, 503);
    server.restart().await;
    gateway.ready().await;
    ready(200, "ready").await;
    let client = connect(&gateway).await.unwrap_or_else(|status| panic!("{status}"));
    server.kill();
    ready(200, "degraded\",\"reasons\":[\"could not").await;
    let second = connect(&gateway).await.unwrap_or_else(|status| panic!("{status}"));
    assert_eq!(gateway.registry().live(), 2);
    server.restart().await;
    ready(200, "ready").await;

    let (status, body) = get(internal, "/connections?limit=1000").await;
    assert_eq!(status, 200, "{body}");
    let page: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(page["connections"].as_array().map(Vec::len), Some(2), "{body}");
    let (status, body) = get(internal, "/nodes").await;
    assert_eq!(status, 200);
    let nodes: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(nodes["nodes"][0]["connections"], 2, "{body}");
    assert_eq!(get(internal, "/connections?limit=0").await.0, 400);
    assert_eq!(get(internal, "/connections?cursor=x").await.0, 400);

    drop((client, second));
    gateway.drain(CancellationToken::new()).await;
    assert_eq!(server.keys().await, Vec::<String>::new(), "nothing remains");
}

#[tokio::test]
async fn with_refuse_new_clients_and_the_load_balancer_are_turned_away() {
    let mut server = RedisServer::start().await;
    let gateway = Gateway::builder(configuration(&server, "refuse")).start().await.expect("a gateway");
    gateway.ready().await;
    let internal = gateway.internal_address();
    let _client = connect(&gateway).await.unwrap_or_else(|status| panic!("{status}"));
    server.kill();
    eventually("not ready", async || get(internal, "/readyz").await.0 == 503).await;
    assert_eq!(connect(&gateway).await.err(), Some(503));
    assert_eq!(gateway.registry().live(), 1, "who is there stays");
    server.restart().await;
    eventually("ready", async || get(internal, "/readyz").await.0 == 200).await;
    let _second = connect(&gateway).await.unwrap_or_else(|status| panic!("{status}"));
    gateway.drain(CancellationToken::new()).await;
    assert_eq!(server.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_end_of_a_connection_whose_stage_this_node_does_not_know_is_lost_and_counted() {
    let server = RedisServer::start().await;
    let dead = RegistryNode::start(&server).await;
    // The first two are of an API and a stage that nobody has here; the stage of the third has no `$disconnect` route.
    for (api_id, stage) in [("gone", "prod"), ("chat", "gone"), ("chat", "prod")] {
        let sample = Connection::sample(ConnectionId::random(dead.id()));
        let connection = Arc::new(Connection { api_id: api_id.into(), stage: stage.into(), ..sample });
        assert!(dead.registry.connect(&connection, None));
        dead.registry.record(&connection.id).await.expect("a record");
    }
    let gateway = Gateway::builder(configuration(&server, "accept")).start().await.expect("a gateway");
    gateway.ready().await;
    dead.kill().await;
    let (tombstone, id) = (dead.replica.keys().node(dead.id()), dead.id().to_string());
    eventually("the records go", async || {
        server.keys().await.iter().all(|key| !key.contains(&id) || *key == tombstone)
    })
    .await;
    let (_, metrics) = get(gateway.internal_address(), "/metrics").await;
    let lost: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("tidegate_disconnect_events_lost_total")).collect();
    assert_eq!(lost.len(), 2, "{lost:?}");
    for labels in ["{api_id=\"gone\",stage=\"prod\"} 1", "{api_id=\"chat\",stage=\"gone\"} 1"] {
        assert!(lost.iter().any(|line| line.ends_with(labels)), "{lost:?}");
    }
    gateway.drain(CancellationToken::new()).await;
}

#[tokio::test]
async fn a_node_in_memory_shows_its_own() {
    let text = "listeners:\n  public: { address: '127.0.0.1:0' }\n  internal: { address: '127.0.0.1:0' }\n\
                apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n    stages: { prod: {} }\n";
    let text = format!("{text}{NOWHERE}");
    let gateway =
        Gateway::builder(config::load(&text, &|_| None).expect("a configuration")).start().await.expect("a gateway");
    let internal = gateway.internal_address();
    let _client = connect(&gateway).await.unwrap_or_else(|status| panic!("{status}"));
    assert_eq!(get(internal, "/readyz").await, (200, "{\"status\":\"ready\",\"reasons\":[]}\n".to_owned()));
    let (_, body) = get(internal, "/connections?api=chat&stage=prod").await;
    let page: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(page["connections"][0]["state"], "open", "{body}");
    let (_, body) = get(internal, "/nodes").await;
    let nodes: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(nodes["nodes"][0]["connections"], 1);
    gateway.drain(CancellationToken::new()).await;
}
