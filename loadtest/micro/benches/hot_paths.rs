//! What every message, post and connection passes through. Counts are the same on every machine of one architecture;
//! gungraun prints the difference to its last run. Inputs are given back where dropping them would count.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use gungraun::prelude::*;
use tidegate_connections::registry::Registry;
use tidegate_connections::session::{Closing, Outbox};
use tidegate_core::clock::Timestamp;
use tidegate_core::id::{ConnectionId, EventId, NodeId};
use tidegate_core::request_context::{Connection, Event, RequestContext};
use tidegate_integration::{Payload, proxy_answer, proxy_event};
use tidegate_language::expression::SelectionExpression;

const ACTION: &str = "$request.body.action";
const SMALL_BYTES: usize = 128;
const LARGE_BYTES: usize = 16 * 1024;

fn message(bytes: usize) -> String {
    let (head, tail) = ("{\"action\":\"echo\",\"text\":\"", "\"}");
    format!("{head}{}{tail}", "x".repeat(bytes - head.len() - tail.len()))
}

fn selection(expression: &str, bytes: usize) -> (SelectionExpression, String) {
    (SelectionExpression::parse(expression).expect("an expression"), message(bytes))
}

#[library_benchmark]
#[bench::small(selection(ACTION, SMALL_BYTES))]
#[bench::large(selection(ACTION, LARGE_BYTES))]
#[bench::two_variables(selection("${request.body.action}/${request.body.text}", SMALL_BYTES))]
fn select_route(input: (SelectionExpression, String)) -> usize {
    let (expression, message) = &input;
    black_box(expression.evaluate(black_box(message))).map_or(0, |key| key.len())
}

fn connection(node: NodeId) -> Arc<Connection> {
    Arc::new(Connection {
        id: ConnectionId::random(node),
        api_id: "chat".into(),
        stage: "prod".into(),
        connected_at: Timestamp(1_757_454_867_412),
        configuration: 0,
        host: "chat.example.com".into(),
        callback_secure: true,
        secure: true,
        source_ip: IpAddr::from([198, 51, 100, 23]),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into()),
        principal: Default::default(),
        client_cert: None,
        port: 443,
        forwarded_for: None,
        topics: Default::default(),
    })
}

/// The ids are made beforehand: the first use of the generator seeds it.
fn event(bytes: usize) -> (Arc<Connection>, Payload, EventId) {
    (connection(NodeId::random()), Payload::Text(message(bytes).into()), EventId::random())
}

#[library_benchmark]
#[bench::small(event(SMALL_BYTES))]
#[bench::large(event(LARGE_BYTES))]
fn build_event(input: (Arc<Connection>, Payload, EventId)) -> (Vec<u8>, (Arc<Connection>, Payload, EventId)) {
    let (connection, payload, id) = &input;
    let context = RequestContext {
        connection,
        event: Event::Message { message_id: *id },
        route_key: "echo",
        request_id: *id,
        request_time: Timestamp(1_757_454_879_001),
        domain_name: &connection.host,
        callback_url: "https://chat.example.com/prod/@connections/AAAAAAAAAAAAAAAAAAA=".to_owned(),
        trace: None,
        principal: None,
    };
    let event = black_box(proxy_event(black_box(&context), &BTreeMap::new(), None, payload));
    (event, input)
}

fn answer(bytes: usize) -> Bytes {
    format!("{{\"statusCode\":200,\"body\":\"{}\"}}", "x".repeat(bytes)).into()
}

#[library_benchmark]
#[bench::small(answer(SMALL_BYTES))]
#[bench::large(answer(LARGE_BYTES))]
fn read_answer(answer: Bytes) -> bool {
    black_box(proxy_answer::parse(black_box(&answer))).is_ok()
}

#[library_benchmark]
#[bench::id(ConnectionId::random(NodeId::random()))]
fn write_connection_id(id: ConnectionId) -> String {
    black_box(black_box(id).to_string())
}

#[library_benchmark]
#[bench::id(ConnectionId::random(NodeId::random()).to_string())]
fn read_connection_id(text: String) -> bool {
    black_box(ConnectionId::parse(black_box(&text))).is_ok()
}

/// A registry with so many open connections, and one of them or one more.
fn registry(open: usize) -> (Registry, Arc<Connection>) {
    let registry = Registry::new();
    let mut last = connection(registry.node());
    for _ in 0..open {
        last = connection(registry.node());
        assert!(registry.connect(&last, None));
        registry.open(&last.id, Arc::new(Outbox::new(1024, Timestamp(0))));
    }
    (registry, last)
}

#[library_benchmark]
#[bench::of_1000(registry(1000))]
fn find_connection(input: (Registry, Arc<Connection>)) -> (bool, (Registry, Arc<Connection>)) {
    let (registry, connection) = &input;
    let is_open = black_box(registry.get_open(black_box(&connection.id))).is_some();
    (is_open, input)
}

#[library_benchmark]
#[bench::beside_1000(args = (1000), setup = beside)]
fn connect_and_end(input: (Registry, Arc<Connection>, Arc<Outbox>)) -> (bool, Registry) {
    let (registry, connection, outbox) = input;
    registry.connect(&connection, None);
    registry.open(&connection.id, outbox);
    registry.end(&connection.id, Closing::lost());
    let is_settled = black_box(registry.settle(&connection.id));
    (is_settled, registry)
}

fn beside(open: usize) -> (Registry, Arc<Connection>, Arc<Outbox>) {
    let (registry, _) = registry(open);
    let connection = connection(registry.node());
    (registry, connection, Arc::new(Outbox::new(1024, Timestamp(0))))
}

library_benchmark_group!(name = messages, benchmarks = [select_route, build_event, read_answer]);
library_benchmark_group!(name = ids, benchmarks = [write_connection_id, read_connection_id]);
library_benchmark_group!(name = connections, benchmarks = [find_connection, connect_and_end]);
main!(library_benchmark_groups = messages, ids, connections);
