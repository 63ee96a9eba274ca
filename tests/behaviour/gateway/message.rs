//! Messages from clients: which route they take, and what comes back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidegate_testing::{Gate, RawClient, Reply, Settings, TestBackend, TestClient, eventually, frame};
use tokio_tungstenite::tungstenite::Message;

/// The frame for a message that failed.
fn expect_error(frame: &Value, message: &str, connection_id: &str) {
    assert_eq!(frame["message"], message);
    assert_eq!(frame["connectionId"], connection_id);
    assert_eq!(frame["requestId"].as_str().unwrap().len(), 16);
    assert_eq!(frame.as_object().unwrap().len(), 3);
}

async fn expect_route(backend: &TestBackend, client: &mut TestClient, message: &str, route_key: &str) {
    client.send(message).await;
    let call = backend.next("MESSAGE").await;
    let shown = &message[..message.len().min(80)];
    assert_eq!(call.context()["routeKey"], route_key, "{shown}");
    assert_eq!(call.event()["body"], message, "{shown}");
}

#[tokio::test]
async fn the_action_selects_the_route_and_everything_else_is_default() {
    let backend = TestBackend::start().await;
    let more = ["\"1\"", "\"true\"", "\"null\"", "service/action"];
    let settings = more.iter().fold(Settings::aws_proxy(&backend), |settings, key| {
        settings.route(&format!("{key}: {{ target: integrations/backend }}"))
    });
    let gateway = settings.start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for (message, route_key) in [
        (r#"{"action":"tell"}"#, "tell"),
        (r#" {"x":[{"action":"ask"}], "action" : "tell" } "#, "tell"),
        (r#"{"action":"t\u0065ll"}"#, "tell"),
        (r#"{"action":"ask","action":"tell"}"#, "tell"),
        (r#"{"action":"tell","action":"unknown"}"#, "$default"),
        (r#"{"action":"service/action"}"#, "service/action"),
        (r#"{"action":1}"#, "1"),
        (r#"{"action":true}"#, "true"),
        (r#"{"action":null}"#, "null"),
        (r#"{"action":"Tell"}"#, "$default"),
        (r#"{"action":"tell "}"#, "$default"),
        (r#"{"action":""}"#, "$default"),
        (r#"{"action":{}}"#, "$default"),
        (r#"{"Action":"tell"}"#, "$default"),
        (r#"{"a":{"action":"tell"}}"#, "$default"),
        (r#"{}"#, "$default"),
        (r#"[]"#, "$default"),
        (r#""tell""#, "$default"),
        ("hello", "$default"),
        ("", "$default"),
        (r#"{"action":"tell""#, "$default"),
        (r#"{"action":"tell"} x"#, "$default"),
        (r#"{'action':'tell'}"#, "$default"),
        (r#"{"action":"$default"}"#, "$default"),
        (r#"{"action":"$connect"}"#, "$default"),
        (r#"{"action":"$disconnect"}"#, "$default"),
    ] {
        expect_route(&backend, &mut client, message, route_key).await;
    }
}

#[tokio::test]
async fn a_selection_expression_joins_variables_and_text() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend)
        .api("routeSelectionExpression: \"${request.body.service}/${request.body.names[0]}\"")
        .route("a/b: { target: integrations/backend }, a/: { target: integrations/backend }")
        .start()
        .await;
    let (mut client, _) = gateway.client(&backend).await;
    for (message, route_key) in [
        (r#"{"service":"a","names":["b"]}"#, "a/b"),
        (r#"{"service":"a"}"#, "a/"),
        (r#"{"service":"a/b"}"#, "$default"),
        ("a/b", "$default"),
    ] {
        expect_route(&backend, &mut client, message, route_key).await;
    }
}

#[tokio::test]
async fn a_message_without_a_route_gets_a_forbidden_frame_and_the_socket_stays_open() {
    let backend = TestBackend::start().await;
    let routes = "$connect: { target: integrations/backend }, $disconnect: { target: integrations/backend }, \
                  tell: { target: integrations/backend }";
    let gateway = Settings::aws_proxy(&backend).routes(routes).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    for message in [
        "hello",
        r#"{"action":"$connect"}"#,
        r#"{"action":"$disconnect"}"#,
        r#"{"action":"$default"}"#,
        r#"{"action":"x"}"#,
    ] {
        client.send(message).await;
        expect_error(&client.next_json().await, "Forbidden", &id);
    }
    client.send_message(Message::binary(vec![1])).await;
    expect_error(&client.next_json().await, "Forbidden", &id);
    client.send(r#"{"action":"tell"}"#).await;
    backend.next("MESSAGE").await;
    assert_eq!(backend.order(), ["CONNECT", "MESSAGE"]);
}

#[tokio::test]
async fn the_body_is_the_reply_on_a_two_way_route_and_nothing_is_on_a_one_way_route() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    let encoded = STANDARD.encode("decoded \u{e9}");
    for (action, answer, reply) in [
        ("ask", json!({"statusCode": 200, "body": "hi"}), Some("hi")),
        ("tell", json!({"statusCode": 200, "body": "hi"}), None),
        ("ask", json!({"statusCode": 400, "body": "bad"}), Some("bad")),
        ("ask", json!({"statusCode": 503, "body": "sorry"}), Some("sorry")),
        ("ask", json!({"statusCode": 302, "body": "moved"}), Some("moved")),
        ("tell", json!({"statusCode": 500, "body": "unheard"}), None),
        ("ask", json!({"statusCode": 200}), None),
        ("ask", json!({"statusCode": 200, "body": ""}), Some("")),
        ("ask", json!({"statusCode": 500, "body": ""}), Some("")),
        ("ask", json!({"statusCode": 200, "body": "", "isBase64Encoded": true}), Some("")),
        ("tell", json!({"statusCode": 200, "body": ""}), None),
        ("ask", json!({"statusCode": 200, "body": null}), None),
        ("ask", json!({"statusCode": 200, "body": encoded, "isBase64Encoded": true}), Some("decoded \u{e9}")),
        ("ask", json!({"statusCode": 200, "body": "//8=", "isBase64Encoded": true}), Some("\u{fffd}\u{fffd}")),
        ("unknown", json!({"statusCode": 200, "body": "default is two-way"}), Some("default is two-way")),
    ] {
        backend.answer("MESSAGE", Reply::json(&answer));
        client.send(&json!({"action": action}).to_string()).await;
        backend.next("MESSAGE").await;
        if let Some(reply) = reply {
            assert_eq!(client.next_text().await, reply, "{answer}");
        }
    }
    backend.answer("MESSAGE", Reply::body("the end"));
    client.send(r#"{"action":"ask"}"#).await;
    assert_eq!(client.next_text().await, "the end", "nothing came before");
}

#[tokio::test]
async fn an_empty_message_comes_back_from_a_backend_that_echoes() {
    let backend = TestBackend::start().await;
    backend.answer_with(|call| match call.event_type() {
        "MESSAGE" => {
            let event = call.event();
            Reply::json(&json!({"statusCode": 200, "body": event["body"], "isBase64Encoded": event["isBase64Encoded"]}))
        }
        _ => Reply::ok(),
    });
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for message in [Message::text(""), Message::binary(vec![]), Message::text("x"), Message::binary(vec![0])] {
        client.send_message(message.clone()).await;
        assert_eq!(client.next_message().await, message);
    }
}

#[tokio::test]
async fn what_others_write_beside_json_does_not_spoil_an_answer() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for (answer, reply) in [
        (r#"{"statusCode":200,"body":"cut \ud83d"}"#, "cut \u{fffd}"),
        (r#"{"statusCode":200,"body":"cut \ude00, whole \ud83d\ude00"}"#, "cut \u{fffd}, whole 😀"),
        (r#"{"statusCode":200,"body":"hi","log":["\ud83d"]}"#, "hi"),
        (r#"{"\ud83d":0,"statusCode":200,"headers":{"x":"\ud83d"},"body":"hi"}"#, "hi"),
        (r#"{"statusCode":200,"body":"{\"a\":\"\\ud83d\"}"}"#, r#"{"a":"\ud83d"}"#),
        ("\u{feff}{\"statusCode\":200,\"body\":\"hi\"}", "hi"),
        (r#"{"statusCode":200.0,"body":"hi"}"#, "hi"),
        (r#"{"statusCode":2e2,"body":"hi"}"#, "hi"),
    ] {
        backend.answer("MESSAGE", Reply::http(200, answer));
        client.send(r#"{"action":"ask"}"#).await;
        assert_eq!(client.next_text().await, reply, "{answer}");
    }
}

#[tokio::test]
async fn half_of_a_surrogate_pair_and_a_byte_order_mark_leave_a_message_its_route_and_its_bytes() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).route("\"x\\ufffd\": { target: integrations/backend }").start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for (message, route_key) in [
        (r#"{"action":"tell","text":"\ud83d"}"#, "tell"),
        (r#"{"\ude00":["\ud83d"],"action":"tell"}"#, "tell"),
        (r#"{"action":"x\ud83d"}"#, "x\u{fffd}"),
        (r#"{"action":"tell\ud83d"}"#, "$default"),
        ("\u{feff}{\"action\":\"tell\"}", "tell"),
        ("\u{feff} x", "$default"),
    ] {
        expect_route(&backend, &mut client, message, route_key).await;
    }
}

#[tokio::test]
async fn a_failed_call_gives_an_error_frame_even_on_a_one_way_route() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    let table = [
        Reply::json(&json!({"errorMessage": "boom", "errorType": "Error"})),
        Reply::ok().header("x-amz-function-error", "Unhandled"),
        Reply::http(200, "null"),
        Reply::http(200, ""),
        Reply::json(&json!({"statusCode": 200, "body": {"a": 1}})),
        Reply::json(&json!({"statusCode": 200, "body": "%", "isBase64Encoded": true})),
        Reply::http(400, "{\"statusCode\":200}"),
        Reply::http(404, ""),
        Reply::http(500, ""),
        Reply::http(302, "").header("location", "/"),
        Reply::Close,
        Reply::Half,
        Reply::Raw(b"garbage\r\n\r\n"),
        Reply::Large(Some(100 * 1024 * 1024)),
        Reply::Large(None),
    ];
    for reply in table {
        for action in ["tell", "ask"] {
            backend.answer("MESSAGE", reply.clone());
            client.send(&json!({"action": action}).to_string()).await;
            let frame = client.next_json().await;
            expect_error(&frame, "Internal server error", &id);
            let context = backend.next("MESSAGE").await.context();
            assert_eq!(frame["requestId"], context["requestId"], "{reply:?}");
        }
    }
    assert_eq!(backend.calls("MESSAGE").len(), 30, "no message is sent twice");
    backend.answer("MESSAGE", Reply::body("still here"));
    client.send(r#"{"action":"ask"}"#).await;
    assert_eq!(client.next_text().await, "still here");
}

#[tokio::test]
async fn a_backend_that_is_not_there_gives_an_error_frame() {
    let routes = "$default: { target: integrations/backend }";
    let gateway = Settings::of("http://127.0.0.1:1", "AWS_PROXY").routes(routes).start().await;
    let mut client = gateway.connect("/prod").await;
    for _ in 0..3 {
        client.send("x").await;
        assert_eq!(client.next_json().await["message"], "Internal server error");
    }
}

#[tokio::test]
async fn a_backend_that_is_too_slow_gives_a_timeout_frame() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).timeout_millis(100).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    for action in ["tell", "ask"] {
        backend.answer("MESSAGE", Reply::hang());
        client.send(&json!({"action": action}).to_string()).await;
        expect_error(&client.next_json().await, "Endpoint request timed out", &id);
    }
}

#[tokio::test]
async fn a_reply_at_the_limit_is_sent_and_a_larger_one_is_an_error() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    // In JSON six times as long.
    let largest = "\u{1}".repeat(131_072);
    backend.answer("MESSAGE", Reply::body(&largest));
    client.send(r#"{"action":"ask"}"#).await;
    assert!(client.next_text().await == largest);
    backend.answer("MESSAGE", Reply::body(&"x".repeat(131_073)));
    client.send(r#"{"action":"ask"}"#).await;
    expect_error(&client.next_json().await, "Internal server error", &id);
    backend.answer("MESSAGE", Reply::body(&"x".repeat(131_073)));
    client.send(r#"{"action":"tell"}"#).await;
    backend.answer("MESSAGE", Reply::body("next"));
    client.send(r#"{"action":"ask"}"#).await;
    assert_eq!(client.next_text().await, "next", "nobody minds the size of a reply that is not sent");
}

#[tokio::test]
async fn a_message_of_any_number_of_frames_is_one_event() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).section("limits: { frameBytes: 32768 }");
    let gateway = settings.start().await;
    let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
    let quarter = vec![b'x'; 32_768];
    client.send(&[frame(0x01, &quarter), frame(0x00, &quarter), frame(0x00, &quarter)].concat()).await;
    client.send(&frame(0x89, b"between")).await;
    assert_eq!(client.next_frame().await.unwrap().first, 0x8a, "a control frame may come between");
    client.send(&frame(0x80, &quarter)).await;
    let event = backend.next("MESSAGE").await.event();
    assert!(event["body"].as_str().unwrap() == "x".repeat(131_072));

    // A character may be cut by a frame's end, and frames may be empty.
    let text = "a\u{1f600}b".as_bytes();
    let pieces = [frame(0x01, &text[..3]), frame(0x00, b""), frame(0x00, &text[3..]), frame(0x80, b"")];
    client.send(&pieces.concat()).await;
    assert_eq!(backend.next("MESSAGE").await.event()["body"], "a\u{1f600}b");

    client.send(&[frame(0x02, &[0, 1]), frame(0x80, &[2])].concat()).await;
    let event = backend.next("MESSAGE").await.event();
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("AAEC"), &json!(true)));
}

#[tokio::test]
async fn no_more_messages_are_at_the_backend_than_allowed_and_the_rest_wait() {
    for (limits, allowed) in [("", 16), ("limits: { concurrentDispatches: 3 }", 3)] {
        let backend = TestBackend::start().await;
        let gateway = Settings::aws_proxy(&backend).section(limits).start().await;
        let (mut client, _) = gateway.client(&backend).await;
        let gates: Vec<Gate> = (0..40).map(|_| Gate::default()).collect();
        for (number, gate) in gates.iter().enumerate() {
            backend.answer("MESSAGE", Reply::body(&number.to_string()).held(gate));
            client.send(&json!({"action": "ask", "number": number}).to_string()).await;
        }
        for _ in 0..allowed {
            backend.next("MESSAGE").await;
        }
        for (number, gate) in gates.iter().enumerate() {
            assert!(backend.calls("MESSAGE").len() <= allowed + number);
            gate.open();
            client.next_text().await;
        }
        assert_eq!(backend.calls("MESSAGE").len(), 40);
        assert_eq!(backend.in_flight_max(), allowed);
    }
}

#[tokio::test]
async fn with_one_dispatch_at_a_time_messages_arrive_in_order() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { concurrentDispatches: 1 }").start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for number in 0..100 {
        client.send(&number.to_string()).await;
    }
    for number in 0..100 {
        assert_eq!(backend.next("MESSAGE").await.event()["body"], number.to_string());
    }
    assert_eq!(backend.in_flight_max(), 1);
}

#[tokio::test]
async fn replies_come_in_the_order_in_which_they_are_ready() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    let gate = Gate::default();
    backend.answer("MESSAGE", Reply::body("first").held(&gate));
    client.send(r#"{"action":"ask"}"#).await;
    backend.next("MESSAGE").await;
    backend.answer("MESSAGE", Reply::body("second"));
    client.send(r#"{"action":"ask"}"#).await;
    assert_eq!(client.next_text().await, "second");
    gate.open();
    assert_eq!(client.next_text().await, "first");
}

#[tokio::test]
async fn a_busy_connection_does_not_keep_another_one_waiting() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { concurrentDispatches: 1 }").start().await;
    let (mut busy, _) = gateway.client(&backend).await;
    backend.answer("MESSAGE", Reply::hang());
    busy.send("x").await;
    backend.next("MESSAGE").await;
    gateway.expect_alive(&backend).await;
    let (mut other, _) = gateway.client(&backend).await;
    backend.answer("MESSAGE", Reply::body("here"));
    other.send("y").await;
    assert_eq!(other.next_text().await, "here");
}

#[tokio::test]
async fn what_is_nested_without_end_is_a_message_like_any_other() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    expect_route(&backend, &mut client, &"[".repeat(131_072), "$default").await;
    expect_route(&backend, &mut client, &"{\"action\":".repeat(13_107), "$default").await;
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    expect_route(&backend, &mut client, &format!(r#"{{"x":{},"action":"tell"}}"#, deep(60_000)), "tell").await;
    expect_route(&backend, &mut client, &format!(r#"{{"action":{}}}"#, deep(60_000)), "$default").await;

    let limits = "limits: { messageBytes: 2000000, frameBytes: 2000000 }";
    for settings in [Settings::aws_proxy(&backend), Settings::http_proxy(&backend)] {
        let gateway = settings.section(limits).start().await;
        let (mut client, _) = gateway.client(&backend).await;
        for (message, route_key) in [
            (format!(r#"{{"action":"tell","x":{}}}"#, deep(100_000)), "tell"),
            (format!("{}1{}", "{\"action\":".repeat(100_000), "}".repeat(100_000)), "$default"),
            (deep(100_000), "$default"),
        ] {
            client.send(&message).await;
            assert_eq!(backend.next("MESSAGE").await.header("x-tidegate-route-key"), route_key);
        }
    }
}

#[tokio::test]
async fn a_flood_of_failing_messages_from_a_client_that_does_not_read_ends_that_client_alone() {
    let backend = TestBackend::start().await;
    let routes = "$connect: { target: integrations/backend }, $disconnect: { target: integrations/backend }";
    let gateway = Settings::aws_proxy(&backend)
        .routes(routes)
        .section("limits: { sendBufferBytes: 1024, slowClientTimeoutSeconds: 1 }")
        .start()
        .await;
    let mut flooding = RawClient::upgrade(gateway.public(), "/prod").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    let many = frame(0x81, b"x").repeat(10_000);
    let flood = tidegate_testing::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while flooding.stream.write_all(&many).await.is_ok() {}
    });
    let disconnect = backend.next("DISCONNECT").await;
    assert_eq!((disconnect.connection_id(), disconnect.closing().0), (&*id, 1008));
    eventually("the flood ends", async || flood.is_finished()).await;
    gateway.expect_alive(&backend).await;
}
