//! Any headers and query string of a client: no panic; no event shows a header that only a proxy or the gateway writes,
//! nor one of the client's connection alone, and no parameter of a name that the gateway writes is left.
//!
//! Input: a query string, then on each line a header.

#![no_main]

use std::collections::BTreeMap;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate_core::clock::Timestamp;
use tidegate_language::expression::{Destination, TakenNames, count_parameters, header_key};
use tidegate_core::id::{ConnectionId, EventId, NodeId};
use tidegate_integration::{Handshake, Payload, proxy_event, remove_hop_by_hop};
use tidegate_core::request_context::{Connection, Event, RequestContext};

fuzz_target!(|input: &str| {
    let (query, lines) = input.split_once('\n').unwrap_or((input, ""));
    let taken = TakenNames::new(Some("own=1"), &[Destination::QueryString("mapped".to_owned())]);
    let left = taken.remove_parameters(query);
    assert_eq!(count_parameters(&left, "own") + count_parameters(&left, "mapped"), 0, "{query}");

    let mut headers = HeaderMap::new();
    for (name, value) in lines.lines().filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    let lists: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    remove_hop_by_hop(&mut headers);
    for name in lists.iter().filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')) {
        assert!(!headers.contains_key(name.trim()), "{name}");
    }

    let connection = Connection::sample(ConnectionId::random(NodeId::random()));
    let context = RequestContext {
        connection: &connection,
        principal: None,
        event: Event::Connect,
        route_key: "$connect",
        request_id: EventId::random(),
        request_time: Timestamp(0),
        domain_name: "localhost",
        callback_url: String::new(),
        trace: None,
    };
    let handshake = Handshake::new(headers, Some(left.into_owned()));
    let event = proxy_event(&context, &BTreeMap::new(), Some(&handshake), &Payload::Empty);
    let event: Value = serde_json::from_slice(&event).expect("an event is JSON");
    for name in event["headers"].as_object().expect("headers").keys() {
        let (lower, key) = (name.to_ascii_lowercase(), header_key(name));
        let is_own = ["x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-amzn-trace-id"].contains(&&*lower);
        let is_hidden = ["forwarded", "x-forwarded", "x-real-ip", "x-tidegate-", "webhook-id", "x-amzn-", "expect"]
            .iter()
            .any(|hidden| key.starts_with(hidden) && (hidden.ends_with('-') || *hidden == "x-forwarded" || key == *hidden));
        assert!(is_own || !is_hidden, "{name}");
    }
});
