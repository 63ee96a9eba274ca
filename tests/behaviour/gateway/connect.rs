//! Handshakes of clients, and what becomes of them by the answer to `$connect`.

use serde_json::json;
use tidegate_testing::{Gate, HttpResponse, RawClient, Reply, Settings, TestBackend, handshake, http};

/// The answer that the gateway makes for a client that it refuses.
fn expect_three_keys(response: &HttpResponse, message: &str, connection_id: &str) {
    let body = response.json();
    assert_eq!(body["message"], message, "{response:?}");
    assert_eq!(body["connectionId"], connection_id, "{response:?}");
    let request_id = body["requestId"].as_str().unwrap();
    assert_eq!(body.as_object().unwrap().len(), 3, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json; charset=UTF-8"));
    assert_eq!(response.header("x-amz-apigw-id"), Some(request_id));
    assert_eq!(response.error_type(), None);
}

#[tokio::test]
async fn every_2xx_lets_the_client_in() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    for status in [200, 201, 204, 299] {
        backend.answer("CONNECT", Reply::json(&json!({"statusCode": status, "body": "not for the client"})));
        let (client, _) = gateway.client(&backend).await;
        client.close(Some((1000, ""))).await;
    }
    backend.answer("CONNECT", Reply::json(&json!({"statusCode": 200})).header("x-more", "1"));
    gateway.connect("/prod/").await;
}

#[tokio::test]
async fn a_status_that_is_not_2xx_refuses_with_the_backends_own_body_and_headers() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    for status in [400, 401, 403, 404, 429, 500, 503, 301, 304, 599] {
        let body = if status == 304 { "" } else { "no" };
        backend.answer(
            "CONNECT",
            Reply::json(&json!({
                "statusCode": status, "body": body,
                "headers": {
                    "x-why": "because", "Content-Type": "text/x", "Content-Length": "77", "Keep-Alive": "timeout=5",
                    "Connection": "close, X-Why2", "x-why2": "for the gateway alone"
                },
                "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]}
            })),
        );
        let response = gateway.handshake("/prod", &[]).await;
        assert_eq!(response.status, status);
        assert_eq!(response.text(), body);
        assert_eq!(response.header("x-why"), Some("because"));
        assert_eq!(response.header("content-type"), Some("text/x"));
        let cookies: Vec<_> = response.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_ne!(response.header("connection"), Some("close, X-Why2"));
        assert_eq!((response.header("x-why2"), response.header("keep-alive")), (None, None));
    }
    gateway.drain().await;
    assert_eq!(backend.calls("DISCONNECT").len(), 0, "a refused client was never there");
}

#[tokio::test]
async fn a_failed_connect_call_is_502_and_tells_the_ids_that_the_event_carried() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let table = [
        ("an error of the function", Reply::json(&json!({"errorMessage": "boom", "errorType": "Error"}))),
        ("a function error in a header", Reply::ok().header("X-Amz-Function-Error", "Unhandled")),
        ("no JSON", Reply::http(200, "Task timed out after 3.00 seconds")),
        ("nothing", Reply::http(200, "")),
        ("no object", Reply::http(200, "\"ok\"")),
        ("null", Reply::http(200, "null")),
        ("no status code", Reply::http(200, "{}")),
        ("a status code out of range", Reply::json(&json!({"statusCode": 99}))),
        ("a body that is an object", Reply::json(&json!({"statusCode": 200, "body": {}}))),
        ("a redirect", Reply::http(302, "").header("location", "/elsewhere")),
        ("a permanent redirect", Reply::http(308, "{\"statusCode\":200}").header("location", "/elsewhere")),
        ("a 5xx of the invoke", Reply::http(500, "secret")),
        ("a 503 of the invoke", Reply::http(503, "{\"statusCode\":200}")),
        ("100 MB", Reply::Large(Some(100 * 1024 * 1024))),
        ("a body without end", Reply::Large(None)),
        ("garbage", Reply::Raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n")),
        ("a broken head", Reply::Raw(b"HTTP/1.1 banana\r\n\r\n")),
        ("an answer that is lost", Reply::Close),
        ("an answer that is lost midway", Reply::Half),
    ];
    for (what, reply) in table {
        backend.answer("CONNECT", reply);
        let response = gateway.handshake("/prod", &[]).await;
        let call = backend.next("CONNECT").await;
        assert_eq!(response.status, 502, "{what}: {response:?}");
        expect_three_keys(&response, "Internal server error", call.connection_id());
        assert_eq!(response.json()["requestId"], call.context()["requestId"], "{what}");
    }
    gateway.expect_alive(&backend).await;
}

#[tokio::test]
async fn a_4xx_of_the_invoke_itself_refuses_with_that_status_and_body() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    for status in [400, 401, 403, 418, 429, 499] {
        backend.answer("CONNECT", Reply::http(status, "the door is shut").header("x-why", "because"));
        let response = gateway.handshake("/prod", &[]).await;
        assert_eq!((response.status, response.text()), (status, "the door is shut"));
        assert_eq!(response.header("x-why"), Some("because"));
    }
    gateway.drain().await;
    assert_eq!(backend.calls("DISCONNECT").len(), 0);
}

#[tokio::test]
async fn an_http_proxy_backend_refuses_with_4xx_and_5xx_of_its_own() {
    let backend = TestBackend::start().await;
    let gateway = Settings::http_proxy(&backend).start().await;
    for status in [400, 403, 500, 502, 599] {
        backend.answer("CONNECT", Reply::http(status, "no"));
        let response = gateway.handshake("/prod", &[]).await;
        assert_eq!((response.status, response.text()), (status, "no"));
    }
    backend.answer("CONNECT", Reply::http(302, "").header("location", "/elsewhere"));
    assert_eq!(gateway.handshake("/prod", &[]).await.status, 502);
    for status in [200, 204] {
        backend.answer("CONNECT", Reply::http(status, "").header("sec-websocket-protocol", "v1"));
        let response = gateway.handshake("/prod", &[("Sec-WebSocket-Protocol", "v1")]).await;
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, Some("v1")));
    }
}

#[tokio::test]
async fn a_connect_call_that_times_out_is_504_and_one_disconnect_follows() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).timeout_millis(100).start().await;
    backend.answer("CONNECT", Reply::hang());
    let response = gateway.handshake("/prod", &[]).await;
    let call = backend.next("CONNECT").await;
    assert_eq!(response.status, 504);
    expect_three_keys(&response, "Endpoint request timed out", call.connection_id());
    gateway.drain().await;
    let disconnects = backend.calls("DISCONNECT");
    assert_eq!(disconnects.len(), 1);
    assert_eq!(disconnects[0].connection_id(), call.connection_id());
    assert_eq!(disconnects[0].closing().0, 1006);
}

#[tokio::test]
async fn a_connect_answer_that_is_lost_refuses_the_client_and_one_disconnect_follows() {
    for reply in [Reply::Close, Reply::Half, Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")] {
        let backend = TestBackend::start().await;
        let gateway = Settings::aws_proxy(&backend).start().await;
        backend.answer("CONNECT", reply.clone());
        assert_eq!(gateway.handshake("/prod", &[]).await.status, 502, "{reply:?}");
        let call = backend.next("CONNECT").await;
        gateway.drain().await;
        let disconnects = backend.calls("DISCONNECT");
        assert_eq!(disconnects.len(), 1, "{reply:?}");
        assert_eq!(disconnects[0].connection_id(), call.connection_id());
        assert_eq!(backend.calls("CONNECT").len(), 1, "it is not sent again");
    }
}

#[tokio::test]
async fn an_unreachable_backend_is_502_and_gets_no_disconnect() {
    let gateway = Settings::of("http://127.0.0.1:1", "AWS_PROXY").start().await;
    let response = gateway.handshake("/prod", &[]).await;
    assert_eq!(response.status, 502);
    let id = response.json()["connectionId"].as_str().unwrap().to_owned();
    expect_three_keys(&response, "Internal server error", &id);
    assert_eq!(gateway.metric("tidegate_disconnect_events_pending").await, 0);
    gateway.drain().await;
}

#[tokio::test]
async fn without_a_connect_route_the_client_is_let_in_at_once() {
    let backend = TestBackend::start().await;
    let routes = "$default: { target: integrations/backend }, $disconnect: { target: integrations/backend }";
    let gateway = Settings::aws_proxy(&backend).routes(routes).start().await;
    let mut client = gateway.connect("/prod").await;
    assert!(backend.order().is_empty());
    client.send("hello").await;
    let id = backend.next("MESSAGE").await.connection_id().to_owned();
    assert_eq!(gateway.post(&id, "hi").await.status, 200);
    assert_eq!(client.next_text().await, "hi");
    client.close(Some((1000, "done"))).await;
    assert_eq!(backend.next("DISCONNECT").await.closing(), (1000, "done".to_owned()));
}

#[tokio::test]
async fn a_client_without_a_required_parameter_is_400_and_no_backend_is_called() {
    let backend = TestBackend::start().await;
    let routes = "$connect: { target: integrations/backend, requestParameters: \
                  { route.request.querystring.token: { required: true }, route.request.header.x-key: { required: true }, \
                    route.request.querystring.more: { required: false } } }, \
                  $disconnect: { target: integrations/backend }";
    let gateway = Settings::aws_proxy(&backend).routes(routes).start().await;
    for (target, headers) in [
        ("/prod", [].as_slice()),
        ("/prod?token=1", &[]),
        ("/prod", &[("x-key", "1")]),
        ("/prod?Token=1", &[("x-key", "1")]),
        ("/prod?more=1", &[("x-key", "1")]),
    ] {
        let response = gateway.handshake(target, headers).await;
        assert_eq!(response.status, 400, "{target}");
        let id = response.json()["connectionId"].as_str().unwrap().to_owned();
        expect_three_keys(&response, "Missing required request parameters", &id);
    }
    assert_eq!(gateway.handshake("/prod?a=1&token=", &[("X-Key", "1")]).await.status, 101);
    assert_eq!(backend.calls("CONNECT").len(), 1);
}

#[tokio::test]
async fn the_subprotocol_is_the_backends_choice_and_no_other_header_reaches_the_client() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let offer = [("Sec-WebSocket-Protocol", "chat.v2, chat.v1"), ("Sec-WebSocket-Extensions", "permessage-deflate")];
    for headers in [json!({"sec-websocket-PROTOCOL": "chat.v1", "Set-Cookie": "a=1", "x-more": "1"})] {
        backend.answer("CONNECT", Reply::json(&json!({"statusCode": 200, "headers": headers})));
        let response = gateway.handshake("/prod", &offer).await;
        assert_eq!(response.status, 101);
        assert_eq!(response.header("sec-websocket-protocol"), Some("chat.v1"));
        assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let mut names: Vec<&str> = response.headers.keys().map(http::HeaderName::as_str).collect();
        names.retain(|name| *name != "date");
        names.sort_unstable();
        assert_eq!(names, ["connection", "sec-websocket-accept", "sec-websocket-protocol", "upgrade"]);
    }
    let event = backend.next("CONNECT").await.event();
    assert_eq!(event["headers"]["Sec-WebSocket-Protocol"], "chat.v2, chat.v1");
    // Not asked for by the backend: the gateway never picks one.
    let response = gateway.handshake("/prod", &offer).await;
    assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, None));
}

#[tokio::test]
async fn a_subprotocol_that_clients_would_fail_for_is_left_out_and_counted() {
    let backend = TestBackend::start().await;
    let gateway = Settings::http_proxy(&backend).start().await;
    let offer = [("Sec-WebSocket-Protocol", "chat.v2, chat.v1")];
    let answers: [&[&str]; 6] =
        [&[""], &["chat.v3"], &["CHAT.V1"], &["chat.v2, chat.v1"], &["chat.v1", "chat.v2"], &["chat v1"]];
    for chosen in answers {
        let reply =
            chosen.iter().fold(Reply::http(200, ""), |reply, value| reply.header("sec-websocket-protocol", value));
        backend.answer("CONNECT", reply);
        let response = gateway.handshake("/prod", &offer).await;
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, None), "{chosen:?}");
    }
    backend.answer("CONNECT", Reply::http(200, "").header("sec-websocket-protocol", "chat.v1"));
    assert_eq!(gateway.handshake("/prod", &[]).await.header("sec-websocket-protocol"), None, "nothing was offered");
    let hop = Reply::http(200, "").header("sec-websocket-protocol", "chat.v1");
    backend.answer("CONNECT", hop.header("connection", "Sec-WebSocket-Protocol"));
    assert_eq!(gateway.handshake("/prod", &offer).await.header("sec-websocket-protocol"), None);
    backend.answer("CONNECT", Reply::http(200, "").header("sec-websocket-protocol", "chat.v1"));
    assert_eq!(gateway.handshake("/prod", &offer).await.header("sec-websocket-protocol"), Some("chat.v1"));
    let page = http(gateway.internal(), "GET", "/metrics", &[], b"").await;
    let counted = page.text().lines().find(|line| line.contains("subprotocolLeftOut")).expect("a reason");
    assert!(counted.ends_with(" 7"), "{counted}");
}

#[tokio::test]
async fn the_handshake_waits_for_the_backend() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let gate = Gate::default();
    backend.answer("CONNECT", Reply::ok().held(&gate));
    let mut client = RawClient::connect(gateway.public()).await;
    client.send(&handshake(gateway.public(), "/prod", &[])).await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    let response = gateway.post(&id, "too early").await;
    assert_eq!((response.status, response.error_type()), (410, Some("GoneException")));
    assert_eq!(gateway.call("GET", &id, b"").await.status, 410);
    assert_eq!(gateway.call("DELETE", &id, b"").await.status, 410);
    gate.open();
    assert_eq!(client.response().await.status, 101);
    assert_eq!(gateway.post(&id, "now").await.status, 200);
    assert_eq!(client.next_frame().await.unwrap().payload, b"now");
}

#[tokio::test]
async fn frames_that_come_right_behind_the_handshake_are_not_lost() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = RawClient::connect(gateway.public()).await;
    let frame = tidegate_testing::frame(0x81, b"early");
    client.send(&[handshake(gateway.public(), "/prod", &[]), frame].concat()).await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(backend.next("MESSAGE").await.event()["body"], "early");
}

#[tokio::test]
async fn the_body_of_a_handshake_is_not_taken_for_frames() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let hidden = tidegate_testing::frame(0x81, b"hidden");
    let length = hidden.len().to_string();
    let mut client = RawClient::connect(gateway.public()).await;
    client.send(&handshake(gateway.public(), "/prod", &[("Content-Length", &length)])).await;
    client.send(&[hidden, tidegate_testing::frame(0x81, b"open")].concat()).await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(backend.next("MESSAGE").await.event()["body"], "open");
}

#[tokio::test]
async fn only_the_gateway_says_101() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    for status in [100, 101, 102, 199] {
        backend.answer("CONNECT", Reply::json(&json!({"statusCode": status})));
        assert_eq!(gateway.handshake("/prod", &[]).await.status, 502, "{status}");
    }
    gateway.drain().await;
    assert_eq!(backend.calls("DISCONNECT").len(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_backend_accepts_gets_one_disconnect() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let gate = Gate::default();
    backend.answer("CONNECT", Reply::ok().held(&gate));
    let mut client = RawClient::connect(gateway.public()).await;
    client.send(&handshake(gateway.public(), "/prod", &[])).await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    client.reset();
    gate.open();
    let disconnect = backend.next("DISCONNECT").await;
    assert_eq!((disconnect.connection_id(), disconnect.closing().0), (&*id, 1006));
    gateway.drain().await;
    assert_eq!(backend.calls("DISCONNECT").len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_backend_refuses_gets_no_disconnect() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let gate = Gate::default();
    backend.answer("CONNECT", Reply::json(&json!({"statusCode": 403})).held(&gate));
    let mut client = RawClient::connect(gateway.public()).await;
    client.send(&handshake(gateway.public(), "/prod", &[])).await;
    backend.next("CONNECT").await;
    client.reset();
    gate.open();
    gateway.drain().await;
    assert_eq!(backend.order(), ["CONNECT"]);
}

#[tokio::test]
async fn a_full_node_answers_503_and_says_when_to_come_again() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { connections: 2 }").start().await;
    let (first, _) = gateway.client(&backend).await;
    let (_second, _) = gateway.client(&backend).await;
    let response = gateway.handshake("/prod", &[]).await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(backend.calls("CONNECT").len(), 2);
    first.close(Some((1000, ""))).await;
    backend.next("DISCONNECT").await;
    gateway.client(&backend).await;
}

#[tokio::test]
async fn refused_clients_do_not_count_as_connections() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { connections: 1 }").start().await;
    for reply in [Reply::http(403, ""), Reply::http(500, ""), Reply::Close, Reply::http(200, "x")] {
        backend.answer("CONNECT", reply);
        assert_ne!(gateway.handshake("/prod", &[]).await.status, 503);
    }
    gateway.connect("/prod").await;
}
