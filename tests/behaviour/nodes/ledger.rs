//! The ledger itself: what it accepts, and that it notices each thing that must not be.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tidegate_testing::{Answer, Entrances, EventType, Ledger};

/// Tells a ledger events `TYPE CONNECTION EVENT ATTEMPT`; what it finds wrong, if `living` live.
async fn problems(events: &[&str], living: &[&str]) -> Vec<String> {
    let ledger = Ledger::start(Entrances::default()).await;
    ledger.answer(|call| match call.connection_id.as_str() {
        "refused" if call.event_type == EventType::Connect => Answer::Status(403, Duration::ZERO),
        "lost" if call.event_type == EventType::Connect => Answer::Lost(Duration::ZERO),
        _ => Answer::OK,
    });
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for event in events {
        let [event_type, connection_id, event_id, attempt] = event.split(' ').collect::<Vec<_>>()[..] else { panic!() };
        let context = json!({ "eventType": event_type, "connectionId": connection_id, "requestId": event_id });
        let request = http::Request::post(format!("http://{}/", ledger.address)).header("x-tidegate-attempt", attempt);
        let request = request.body(Full::from(json!({ "requestContext": context }).to_string())).unwrap();
        let answered = client.request(request).await.is_ok();
        assert_eq!(answered, !(connection_id == "lost" && event_type == "CONNECT"));
    }
    ledger.problems(&living.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>())
}

#[tokio::test]
async fn a_ledger_that_balances_has_no_problems() {
    let whole = ["CONNECT a 1 1", "MESSAGE a 2 1", "DISCONNECT a 3 1", "CONNECT b 4 1"];
    assert_eq!(problems(&whole, &["b"]).await, [""; 0]);
    let again = ["CONNECT a 1 1", "DISCONNECT a 3 1", "DISCONNECT a 3 1", "DISCONNECT a 3 2"];
    assert_eq!(problems(&again, &[]).await, [""; 0]);
    let refused = ["CONNECT refused 1 1", "CONNECT lost 2 1", "DISCONNECT lost 3 1"];
    assert_eq!(problems(&refused, &[]).await, [""; 0]);
}

#[tokio::test]
async fn a_ledger_notices_whatever_must_not_be() {
    let table: &[(&[&str], &[&str], &str)] = &[
        (&["CONNECT a 1 1"], &[], "a: no $disconnect"),
        (&["CONNECT lost 1 1"], &[], "no $disconnect, and its connect had no answer"),
        (&["CONNECT a 1 1", "DISCONNECT a 3 1"], &["a"], "a $disconnect for a connection that lives"),
        (&["CONNECT refused 1 1", "DISCONNECT refused 3 1"], &[], "although it was refused"),
        (&["DISCONNECT a 3 1"], &[], "a: 0 connects"),
        (&["CONNECT a 1 1", "CONNECT a 2 1", "DISCONNECT a 3 1"], &[], "a: 2 connects"),
        (&["CONNECT a 1 1", "DISCONNECT a 3 1", "DISCONNECT a 4 1"], &[], "two $disconnect events"),
        (&["CONNECT a 1 1", "DISCONNECT a 1 1"], &[], "is another event's"),
        (&["CONNECT a 1 1", "DISCONNECT a 3 2"], &[], "attempts are [2]"),
        (&["CONNECT a 1 1", "DISCONNECT a 3 1", "MESSAGE a 2 1"], &[], "after its $disconnect came"),
        (&["CONNECT a 1 1", "DISCONNECT a 3 1", "CONNECT b 4 1", "DISCONNECT b 3 1"], &[], "a and b share event 3"),
    ];
    for (events, living, expected) in table {
        let problems = problems(events, living).await;
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{events:?}: {problems:?}");
    }
}
