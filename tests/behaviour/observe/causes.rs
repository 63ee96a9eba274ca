//! Every metric that there is has a cause here that moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tidegate_connections::redis_client::{Keys, RedisCommand};
use tidegate_core::id::NodeId;
use tidegate_telemetry::Metrics;
use tidegate_testing::{
    Gate, Process, RawClient, Reply, Settings, TestBackend, TestClient, TestGateway, eventually, http,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::observe::cluster::TwoNodes;
use crate::observe::collector::Collector;

/// Metrics of the process itself and of its version, which are there without a cause.
const WITHOUT_CAUSE: [&str; 8] = [
    "tidegate_accept_paused",
    "process_resident_memory_bytes",
    "process_threads",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "tidegate_build_info",
];

/// The values of all series, by name, added up.
async fn values(gateway: &TestGateway) -> BTreeMap<String, f64> {
    values_at(gateway.internal()).await
}

async fn values_at(internal: SocketAddr) -> BTreeMap<String, f64> {
    let page = http(internal, "GET", "/metrics", &[], b"").await;
    let mut values = BTreeMap::new();
    for line in page.text().lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        *values.entry(name.to_owned()).or_default() += value.parse::<f64>().unwrap();
    }
    values
}

/// Metrics that were seen to move.
#[derive(Default)]
struct Moved(BTreeSet<&'static str>);

impl Moved {
    /// Waits until each of these has another value than before.
    async fn expect(&mut self, gateway: &TestGateway, before: &BTreeMap<String, f64>, names: &[&'static str]) {
        let value = |values: &BTreeMap<String, f64>, name: &str| values.get(name).copied().unwrap_or_default();
        for name in names {
            eventually(name, async || value(&values(gateway).await, name) != value(before, name)).await;
            self.0.insert(name);
        }
    }
}

#[tokio::test]
async fn every_metric_has_a_cause_that_moves_it() {
    let mut moved = Moved::default();
    clients_and_messages(&mut moved).await;
    what_waits(&mut moved).await;
    what_fails(&mut moved).await;
    who_enters(&mut moved).await;
    telemetry_itself(&mut moved).await;
    Box::pin(other_nodes(&mut moved)).await;

    let metrics = Metrics::new("memory");
    // A histogram moves as a whole.
    let known = metrics.names().iter().filter(|name| !name.ends_with("_bucket") && !name.ends_with("_sum"));
    let known: BTreeSet<&str> = known.map(String::as_str).collect();
    let covered: BTreeSet<&str> = moved.0.into_iter().chain(WITHOUT_CAUSE).collect();
    assert_eq!(known.difference(&covered).collect::<Vec<_>>(), Vec::<&&str>::new(), "nothing here moves them");
    assert_eq!(covered.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "there are no such metrics");
}

async fn clients_and_messages(moved: &mut Moved) {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).stage("routeSettings: { ask: { detailedMetricsEnabled: true } }");
    let mut gateway = settings.start().await;
    let start = values(&gateway).await;
    for name in WITHOUT_CAUSE {
        assert!(start.contains_key(name), "{name}");
    }

    // A client connects, and sends a message that its backend answers.
    let (mut client, id) = gateway.client(&backend).await;
    let names = [
        "tidegate_connections_open",
        "tidegate_connects_total",
        "tidegate_aws_connect_count_total",
        "tidegate_integration_duration_seconds_count",
        "tidegate_aws_integration_latency_seconds_count",
        "tidegate_backend_connections",
        "tidegate_backend_connections_idle",
    ];
    moved.expect(&gateway, &start, &names).await;
    let before = values(&gateway).await;
    backend.answer("MESSAGE", Reply::body("pong"));
    client.send(r#"{"action":"ask"}"#).await;
    client.next_text().await;
    let names = ["tidegate_messages_total", "tidegate_message_bytes_total", "tidegate_aws_message_count_total"];
    moved.expect(&gateway, &before, &names).await;

    // The backend posts to it, puts it into a group, and posts to the group.
    let before = values(&gateway).await;
    assert_eq!(gateway.post(&id, "hello").await.status, 200);
    moved.expect(&gateway, &before, &["tidegate_pushes_total"]).await;
    let joined = http(gateway.internal(), "PUT", &format!("/prod/@groups/lobby/connections/{id}"), &[], b"").await;
    assert!(joined.status < 300, "{}", joined.text());
    moved.expect(&gateway, &before, &["tidegate_groups", "tidegate_group_memberships"]).await;
    assert_eq!(http(gateway.internal(), "POST", "/prod/@groups/lobby", &[], b"all").await.status, 200);
    let names = ["tidegate_fan_out_deliveries_total", "tidegate_fan_out_duration_seconds_count"];
    moved.expect(&gateway, &before, &names).await;

    assert_eq!((client.next_text().await.as_str(), client.next_text().await.as_str()), ("hello", "all"));

    // It leaves, and its backend takes a while to learn of it.
    let gate = Gate::default();
    backend.answer("DISCONNECT", Reply::Held(gate.clone(), Box::new(Reply::ok())));
    client.close(Some((4000, "bye"))).await;
    let names = [
        "tidegate_disconnects_total",
        "tidegate_disconnect_codes_total",
        "tidegate_disconnect_events_pending",
        "tidegate_disconnect_backlog_ratio",
    ];
    moved.expect(&gateway, &before, &names).await;
    gate.open();
    gateway.settled().await;
    gateway.reload(&settings);
    moved.expect(&gateway, &before, &["tidegate_reloads_total"]).await;
}

async fn what_waits(moved: &mut Moved) {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).integration("maxConnections: 1").start().await;
    let (mut first, _) = gateway.client(&backend).await;
    let (mut second, _) = gateway.client(&backend).await;
    let before = values(&gateway).await;
    let gate = Gate::default();
    for client in [&mut first, &mut second] {
        backend.answer("MESSAGE", Reply::Held(gate.clone(), Box::new(Reply::ok())));
        client.send(r#"{"action":"tell"}"#).await;
    }
    // One is at the backend, the other waits for its socket.
    moved.expect(&gateway, &before, &["tidegate_dispatches_in_flight", "tidegate_backend_calls_waiting"]).await;
    gate.open();

    // A client that reads nothing.
    let slow = RawClient::upgrade(gateway.public(), "/prod").await;
    let slow_id = loop {
        let id = backend.next("CONNECT").await.connection_id().to_owned();
        if gateway.call("GET", &id, b"").await.status == 200 {
            break id;
        }
    };
    let data = vec![b'a'; 128 * 1024];
    let posting = async {
        // Until the buffers of the kernel are full too.
        loop {
            join_all((0..16).map(|_| gateway.call("POST", &slow_id, &data))).await;
        }
    };
    let names = ["tidegate_send_buffer_bytes", "tidegate_send_buffer_largest_bytes"];
    tokio::select! {
        () = posting => {}
        () = moved.expect(&gateway, &before, &names) => {}
    }
    drop(slow);
}

async fn what_fails(moved: &mut Moved) {
    let backend = TestBackend::start().await;
    let stage = "routeSettings: { tell: { throttlingRateLimit: 0.001, throttlingBurstLimit: 1 } }";
    let settings = Settings::aws_proxy(&backend).stage(stage).section("disconnect: { retrySeconds: 0 }");
    let gateway = settings.start().await;
    let (mut client, _) = gateway.client(&backend).await;
    let before = values(&gateway).await;
    client.send(r#"{"action":"tell"}"#).await;
    client.send(r#"{"action":"tell"}"#).await;
    let names = ["tidegate_throttled_total", "tidegate_reasons_total", "tidegate_aws_client_error_total"];
    moved.expect(&gateway, &before, &names).await;
    backend.answer("MESSAGE", Reply::json(&json!({ "statusCode": 500 })));
    client.send(r#"{"action":"ask"}"#).await;
    moved.expect(&gateway, &before, &["tidegate_aws_integration_error_total"]).await;
    backend.answer("MESSAGE", Reply::Close);
    client.send(r#"{"action":"ask"}"#).await;
    let names = ["tidegate_integration_errors_total", "tidegate_aws_execution_error_total"];
    moved.expect(&gateway, &before, &names).await;
    backend.answer("DISCONNECT", Reply::http(503, ""));
    drop(client);
    moved.expect(&gateway, &before, &["tidegate_disconnect_events_lost_total"]).await;
}

async fn who_enters(moved: &mut Moved) {
    let backend = TestBackend::start().await;
    let (folder, key) = (tempfile::tempdir().unwrap(), rcgen::KeyPair::generate().unwrap());
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let [chain, private_key] = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&chain, certificate.pem()).unwrap();
    std::fs::write(&private_key, key.serialize_pem()).unwrap();
    let (chain, private_key) = (chain.display(), private_key.display());
    let tls = format!(
        "connectionsApi: NONE, tls: {{ certificates: [ {{ certificate: '{chain}', privateKey: '{private_key}' }} ] }}"
    );
    let gateway = Settings::aws_proxy(&backend).public(&tls).start().await;
    let before = values(&gateway).await;
    TcpStream::connect(gateway.public()).await.unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    moved.expect(&gateway, &before, &["tidegate_tls_handshakes_total"]).await;

    let authorizer = "authorizers: { session: { authorizerType: REQUEST, authorizerUri: \"${env:BACKEND}/auth\" } }";
    let route = "$connect: { target: integrations/backend, authorizationType: CUSTOM, authorizerId: session }";
    let gateway = Settings::aws_proxy(&backend).api(authorizer).routes(route).start().await;
    let before = values(&gateway).await;
    let statement = json!({ "Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*" });
    let policy = json!({ "Version": "2012-10-17", "Statement": [statement] });
    backend.answer("AUTHORIZER", Reply::json(&json!({ "principalId": "ann", "policyDocument": policy })));
    let _client = gateway.connect("/prod").await;
    let names = ["tidegate_authorizer_results_total", "tidegate_authorizer_duration_seconds_count"];
    moved.expect(&gateway, &before, &names).await;
}

async fn telemetry_itself(moved: &mut Moved) {
    let (backend, collector) = (TestBackend::start().await, Collector::start().await);
    let full = "accessLogSettings: { destination: /dev/full, format: '$context.requestId' }";
    let gateway = Settings::aws_proxy(&backend).stage(full).section(collector.section("")).start().await;
    let before = values(&gateway).await;
    let _client = gateway.connect("/prod").await;
    let names = ["tidegate_access_log_lines_lost_total", "tidegate_trace_spans_exported_total"];
    moved.expect(&gateway, &before, &names).await;
    let nobody = "tracing: { otlpEndpoint: \"http://127.0.0.1:9/v1/traces\", samplingRatio: 1 }";
    let gateway = Settings::aws_proxy(&backend).section(nobody).start().await;
    let before = values(&gateway).await;
    let _client = gateway.connect("/prod").await;
    moved.expect(&gateway, &before, &["tidegate_trace_spans_lost_total"]).await;

    // The log is one for the process: a node whose refused calls have more lines than their budget.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.yaml");
    std::fs::write(&file, Settings::aws_proxy(&backend).text()).unwrap();
    let mut process = Process::tidegate(&["serve", "--config", file.to_str().unwrap()], &[]);
    let (_, internal) = process.addresses().await;
    let name = "tidegate_log_lines_lost_total";
    eventually(name, async || {
        join_all((0..100).map(|_| http(internal, "GET", "/prod/@connections/none", &[], b""))).await;
        values_at(internal).await[name] > 0.0
    })
    .await;
    moved.0.insert(name);
}

async fn other_nodes(moved: &mut Moved) {
    let backend = TestBackend::start().await;
    let cluster = TwoNodes::start(&Settings::aws_proxy(&backend)).await;
    let TwoNodes { nodes: [node, other], settings, redis } = cluster;
    let none = BTreeMap::new();
    // Each node has asked Redis, and found its peer.
    let names = [
        "tidegate_registry_state",
        "tidegate_registry_duration_seconds_count",
        "tidegate_node_lease_remaining_seconds",
        "tidegate_links_open",
    ];
    moved.expect(&node, &none, &names).await;
    let before = values(&node).await;
    assert_eq!(http(other.gateway.internal_address(), "POST", "/prod/@broadcast", &[], b"all").await.status, 200);
    moved.expect(&node, &before, &["tidegate_link_asks_total"]).await;
    let mut stranger = TcpStream::connect(node.gateway.peer_address().unwrap()).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    moved.expect(&node, &before, &["tidegate_link_refusals_total"]).await;
    tokio::time::timeout(Duration::from_secs(60), other.drain()).await.unwrap();
    moved.expect(&node, &before, &["tidegate_link_ends_total"]).await;

    // A node dies with a client on it, whose backend takes a while to learn of it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.yaml");
    std::fs::write(&file, settings.text()).unwrap();
    let mut doomed = Process::tidegate(&["serve", "--config", file.to_str().unwrap()], &[]);
    let (public, _) = doomed.addresses().await;
    let _client = TestClient::connect(public, "/prod", &[]).await.unwrap();
    let gate = Gate::default();
    backend.answer("DISCONNECT", Reply::Held(gate.clone(), Box::new(Reply::ok())));
    let before = values(&node).await;
    doomed.signal("KILL");
    let names = ["tidegate_reaping_connections", "tidegate_reaped_connections_total"];
    moved.expect(&node, &before, &names).await;
    gate.open();

    // Two have died whose records nobody could read: one for a long time, one just now.
    for (dead, at) in [(NodeId::random(), "1"), (NodeId::random(), "9999999999999")] {
        let keys = Keys::new("tidegate");
        let record =
            RedisCommand::new("HSET", keys.unreadable(dead)).arg("a connection").arg("no record").arg("").arg(at);
        let index = RedisCommand::new("HSET", keys.unreadable_index()).arg(dead.to_string()).arg("{}");
        redis.connection().await.run(&[record, index]).await.unwrap();
    }
    let late = settings.start().await;
    moved.expect(&late, &none, &["tidegate_unreadable_records", "tidegate_unreadable_records_lost_total"]).await;
}
