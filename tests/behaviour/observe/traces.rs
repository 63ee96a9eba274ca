//! Traces: one runs from a client's message over its backend to the post that it caused.

use std::time::Instant;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tidegate_testing::{Gate, RawClient, Reply, Settings, TestBackend, eventually, http, signed};

use crate::observe::cluster::TwoNodes;
use crate::observe::collector::{Collector, attribute, hex};

const CLIENTS_TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_trace_runs_from_the_message_over_the_backend_to_the_post() {
    let (backend, collector) = (TestBackend::start().await, Collector::start().await);
    let gateway = Settings::aws_proxy(&backend).section(collector.section("")).start().await;
    let mut client = gateway.connect("/prod").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    client.send(r#"{"action":"tell"}"#).await;
    let call = backend.next("MESSAGE").await;
    let traceparent = call.header("traceparent").to_owned();
    let path = format!("/prod/@connections/{id}");
    let posted = http(gateway.internal(), "POST", &path, &[("traceparent", &traceparent)], b"pushed").await;
    assert_eq!((posted.status, client.next_text().await.as_str()), (200, "pushed"));

    let message = collector.span("the message", |span| span.name == "message").await;
    let call_span = collector.span("the call", |span| span.parent_span_id == message.span_id).await;
    let push = collector.span("the post", |span| span.parent_span_id == call_span.span_id).await;
    assert!(message.parent_span_id.is_empty());
    assert_eq!(traceparent, format!("00-{}-{}-01", hex(&message.trace_id), hex(&call_span.span_id)));
    assert_eq!((&call_span.trace_id, &push.trace_id), (&message.trace_id, &message.trace_id));
    assert_eq!((call_span.name.as_str(), call_span.kind), ("call backend", 3));
    assert_eq!((push.name.as_str(), push.kind), ("@connections", 2));
    assert_eq!(attribute(&message, "tidegate.route_key").as_deref(), Some("tell"));
    assert_eq!(attribute(&message, "tidegate.connection_id").as_deref(), Some(&*id));
    assert_eq!(attribute(&push, "tidegate.connection_id").as_deref(), Some(&*id));
    assert_eq!(attribute(&call_span, "server.address"), Some(backend.url()));
    let inside = message.start_time_unix_nano <= call_span.start_time_unix_nano
        && call_span.end_time_unix_nano <= message.end_time_unix_nano;
    assert!(inside, "{message:?} {call_span:?}");
    let root = call.header("x-amzn-trace-id");
    let trace_id = hex(&message.trace_id);
    assert_eq!(
        root,
        format!("Root=1-{}-{};Parent={};Sampled=1", &trace_id[..8], &trace_id[8..], hex(&call_span.span_id))
    );
}

#[tokio::test]
async fn a_clients_own_trace_goes_on() {
    let (backend, collector) = (TestBackend::start().await, Collector::start().await);
    let gateway = Settings::aws_proxy(&backend).section(collector.section("")).start().await;
    let _w3c = gateway.connect_with("/prod", &[("traceparent", CLIENTS_TRACE)]).await;
    let connect = collector.span("the connect", |span| span.name == "$connect").await;
    assert_eq!(hex(&connect.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&connect.parent_span_id), "b7ad6b7169203331");
    let call = backend.next("CONNECT").await;
    assert!(call.header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));

    let root = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    let _xray = gateway.connect_with("/prod", &[("x-amzn-trace-id", root)]).await;
    let trace = |span: &Span| hex(&span.trace_id).starts_with("5759e988");
    let connect = collector.span("X-Ray's", |span| span.name == "$connect" && trace(span)).await;
    assert_eq!(hex(&connect.parent_span_id), "53995c3f42cd8ad8");

    let unsampled = CLIENTS_TRACE.replace("-01", "-00").replace("0af7", "1af7");
    let unsampled: &'static str = Box::leak(unsampled.into_boxed_str());
    let _unsampled = gateway.connect_with("/prod", &[("traceparent", unsampled)]).await;
    backend.next("CONNECT").await;
    assert_eq!(backend.next("CONNECT").await.header("traceparent"), unsampled);
    assert!(!collector.spans().iter().any(|span| hex(&span.trace_id).starts_with("1af7")));
}

#[tokio::test]
async fn without_a_collector_traces_are_passed_on_as_they_are() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = gateway.connect_with("/prod", &[("traceparent", CLIENTS_TRACE)]).await;
    assert_eq!(backend.next("CONNECT").await.header("traceparent"), CLIENTS_TRACE);
    client.send(r#"{"action":"tell"}"#).await;
    assert!(backend.next("MESSAGE").await.header("traceparent").ends_with("-00"));
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_not_there_delays_no_message_and_its_loss_is_counted() {
    let (backend, hanging) = (TestBackend::start().await, Collector::start().await);
    let gate = Gate::default();
    let held = gate.clone();
    hanging.server.answer_with(move |_| Reply::Held(held.clone(), Box::new(Reply::ok())));
    let section = hanging.section(", queueSpans: 16, exportTimeoutMillis: 60000");
    let nobody =
        "tracing: { otlpEndpoint: \"http://127.0.0.1:9/v1/traces\", samplingRatio: 1, exportIntervalMillis: 10 }";
    for (section, cause) in [(&*section, "full"), (nobody, "failed")] {
        let gateway = Settings::aws_proxy(&backend).section(section).start().await;
        backend.answer_with(|_| Reply::body("pong"));
        let mut client = gateway.connect("/prod").await;
        let started = Instant::now();
        for _ in 0..100 {
            client.send(r#"{"action":"ask"}"#).await;
            assert_eq!(client.next_text().await, "pong");
        }
        let pace = started.elapsed() / 100;
        assert!(pace.as_millis() < 200, "{pace:?} for a message");
        let lost = format!("tidegate_trace_spans_lost_total{{cause=\"{cause}\"}}");
        eventually(&lost, async || {
            let page = http(gateway.internal(), "GET", "/metrics", &[], b"").await;
            page.text().lines().any(|line| line.starts_with(&lost) && !line.ends_with(" 0"))
        })
        .await;
    }
    gate.open();
}

#[tokio::test]
async fn a_trace_goes_on_where_a_post_is_forwarded_to_another_node() {
    let (backend, collector) = (TestBackend::start().await, Collector::start().await);
    let cluster = TwoNodes::start(&Settings::aws_proxy(&backend).section(collector.section(""))).await;
    let [owner, other] = &cluster.nodes;
    let (mut client, id) = owner.client(&backend).await;
    client.send(r#"{"action":"tell"}"#).await;
    let call = backend.next("MESSAGE").await;
    let headers = [("traceparent", call.header("traceparent"))];
    let path = format!("/prod/@connections/{id}");
    assert_eq!(http(other.internal(), "POST", &path, &headers, b"pushed").await.status, 200);
    assert_eq!(client.next_text().await, "pushed");
    assert_eq!(http(other.internal(), "GET", &path, &headers, b"").await.status, 200);
    assert_eq!(http(other.internal(), "DELETE", &path, &headers, b"").await.status, 204);
    assert_eq!(http(other.internal(), "POST", &path, &headers, b"late").await.status, 410);

    let message = collector.span("the message", |span| span.name == "message").await;
    let trace = || collector.spans().into_iter().filter(|span| span.trace_id == message.trace_id).collect::<Vec<_>>();
    // The message, the call of its backend, and for each of four calls: what the other node made of it, and the owner.
    eventually("every span", async || trace().len() == 2 + 4 * 3).await;
    let trace = trace();
    for span in trace.iter().filter(|span| span.name == "forwarded @connections") {
        assert_eq!(attribute(span, "tidegate.connection_id").as_deref(), Some(&*id));
    }
    let chain = ["forwarded @connections", "forward", "@connections", "call backend", "message"].join(" < ");
    assert_eq!(chains(&trace, "forwarded @connections"), vec![chain; 4]);
    let failed = trace.iter().filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2));
    let failed: Vec<&str> = failed.map(|span| span.name.as_str()).collect();
    assert_eq!(failed.len(), 3, "the last post, wherever it came: {failed:?}");
}

/// The names of all spans above those of one name, of each in turn.
fn chains(trace: &[Span], name: &str) -> Vec<String> {
    let chain = |span: &Span| {
        let (mut names, mut id) = (vec![span.name.as_str()], &span.parent_span_id);
        while let Some(parent) = trace.iter().find(|parent| parent.span_id == *id) {
            names.push(&parent.name);
            id = &parent.parent_span_id;
        }
        names.join(" < ")
    };
    trace.iter().filter(|span| span.name == name).map(chain).collect()
}

#[tokio::test]
async fn a_trace_goes_on_on_every_node_that_a_push_to_a_group_goes_to() {
    let (backend, collector) = (TestBackend::start().await, Collector::start().await);
    let cluster = TwoNodes::start(&Settings::aws_proxy(&backend).section(collector.section(""))).await;
    let [near, far] = &cluster.nodes;
    let join = |send: &[Value]| {
        Reply::json(&json!({ "statusCode": 200, "tidegate": { "join": ["room-1"], "leave": [], "send": send } }))
    };
    backend.answer("CONNECT", join(&[]));
    let (mut ada, _) = near.client(&backend).await;
    backend.answer("CONNECT", join(&[]));
    let (mut bob, _) = far.client(&backend).await;

    // In the answer to a message, and by a call that the backend makes meanwhile.
    backend.answer("MESSAGE", join(&[json!({ "group": "room-1", "data": "answered" })]));
    ada.send(r#"{"action":"tell"}"#).await;
    assert_eq!((ada.next_text().await, bob.next_text().await), ("answered".to_owned(), "answered".to_owned()));
    let call = backend.next("MESSAGE").await;
    let headers = [("traceparent", call.header("traceparent"))];
    let posted = http(near.internal(), "POST", "/prod/@groups/room-1", &headers, b"posted").await;
    assert_eq!((posted.status, posted.json()["delivered"].as_u64()), (200, Some(2)));
    assert_eq!((ada.next_text().await, bob.next_text().await), ("posted".to_owned(), "posted".to_owned()));

    let message = collector.span("the message", |span| span.name == "message").await;
    let trace = || collector.spans().into_iter().filter(|span| span.trace_id == message.trace_id).collect::<Vec<_>>();
    // The message and the call of its backend; for each push what this node made of it, its way, and the other node.
    eventually("every span", async || trace().len() == 2 + 2 * 3).await;
    let mut chains = chains(&trace(), "forwarded @connections");
    chains.sort_unstable();
    assert_eq!(
        chains,
        [
            ["forwarded @connections", "forward", "@connections", "call backend", "message"].join(" < "),
            ["forwarded @connections", "forward", "send", "message"].join(" < "),
        ]
    );
    for (name, delivered) in [("forwarded @connections", "1"), ("send", "2"), ("@connections", "2")] {
        for span in trace().iter().filter(|span| span.name == name) {
            assert_eq!(attribute(span, "tidegate.delivered").as_deref(), Some(delivered), "{span:?}");
        }
    }
}

/// Traces of strangers that may be made beyond the sampling ratio in a time: 10 a second, and as many at once.
fn budget(started: Instant) -> usize {
    10 * (usize::try_from(started.elapsed().as_secs()).unwrap() + 1) + 10
}

/// A section that makes no trace by itself.
fn unsampled(collector: &Collector) -> String {
    collector.section("").replace("samplingRatio: 1", "samplingRatio: 0")
}

/// Asks for a connection that nobody has, `count` times on one HTTP connection, each time in a trace that is to be made.
async fn ask_in_traces(address: std::net::SocketAddr, count: usize) {
    let mut client = RawClient::connect(address).await;
    let request = format!(
        "GET /prod/@connections/AAAAAAAAAAAAAAAAAAA%3D HTTP/1.1\r\nHost: {address}\r\ntraceparent: {CLIENTS_TRACE}\r\n\r\n"
    );
    for _ in 0..count {
        client.send(request.as_bytes()).await;
        client.response().await;
    }
}

#[tokio::test]
async fn strangers_have_few_traces_made_however_many_they_want() {
    let (backend, collector) = (TestBackend::start().await, Collector::start().await);
    let gateway = Settings::aws_proxy(&backend).section(unsampled(&collector)).start().await;
    let started = Instant::now();
    ask_in_traces(gateway.public(), 1500).await;
    let mut sampled = 0;
    for _ in 0..30 {
        gateway.connect_with("/prod", &[("traceparent", CLIENTS_TRACE)]).await;
        let traceparent = backend.next("CONNECT").await.header("traceparent").to_owned();
        // The trace goes on, whether it is made or not.
        assert!(traceparent.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{traceparent}");
        sampled += usize::from(traceparent.ends_with("-01"));
    }
    let most = budget(started);
    assert!(sampled <= most, "{sampled} of 30, {most} at most");
    // Spans of backends are exported in their order: when the last is there, all are.
    http(gateway.internal(), "GET", "/prod/@connections/x", &[("traceparent", CLIENTS_TRACE)], b"").await;
    let is_of_backend = |span: &Span| attribute(span, "http.response.status_code").as_deref() == Some("400");
    collector.span("the backend's", is_of_backend).await;
    let made = collector.spans().iter().filter(|span| span.name == "@connections").count();
    assert!((2..=most + 1).contains(&made), "{made} of 1500, {most} at most");
}

#[tokio::test]
async fn backends_trusted_proxies_and_signed_calls_have_their_traces_made() {
    let (backend, collector) = (TestBackend::start().await, Collector::start().await);
    let made = async |what: &str, count: usize| {
        let all = || collector.spans().iter().filter(|span| span.name == "@connections").count();
        eventually(what, async || all() >= count).await;
        assert_eq!(all(), count, "{what}");
    };
    let public = "connectionsApi: NONE, trustedProxies: [ 127.0.0.1 ]";
    let gateway = Settings::aws_proxy(&backend).public(public).section(unsampled(&collector)).start().await;
    ask_in_traces(gateway.public(), 60).await;
    made("those of a trusted proxy", 60).await;
    ask_in_traces(gateway.internal(), 60).await;
    made("those of a backend", 120).await;

    let keys = "credentials: { all: { accessKeyId: AKIDALL, secretAccessKey: a secret } }";
    let settings = Settings::aws_proxy(&backend).public("connectionsApi: AWS_IAM").section(keys);
    let gateway = settings.section(unsampled(&collector)).start().await;
    let (address, target) = (gateway.public(), "/prod/@connections/AAAAAAAAAAAAAAAAAAA%3D");
    for _ in 0..60 {
        let headers = signed(("AKIDALL", "a secret"), ("GET", &address.to_string(), target), &[], b"");
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let headers = [&headers[..], &[("traceparent", CLIENTS_TRACE)]].concat();
        assert_eq!(http(address, "GET", target, &headers, b"").await.status, 410);
    }
    made("those of signed calls", 180).await;
    // A call that is not signed proves nothing.
    let started = Instant::now();
    ask_in_traces(address, 1500).await;
    let most = budget(started);
    http(gateway.internal(), "GET", "/prod/@connections/x", &[("traceparent", CLIENTS_TRACE)], b"").await;
    let is_of_backend = |span: &Span| attribute(span, "http.response.status_code").as_deref() == Some("400");
    collector.span("the backend's", is_of_backend).await;
    let refused = collector.spans().iter().filter(|span| span.name == "@connections").count() - 181;
    assert!(refused <= most, "{refused} of 1500, {most} at most");
}
