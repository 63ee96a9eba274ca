//! `@connections`: what backends send to clients.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tidegate::config;
use tidegate_testing::{HttpResponse, RawClient, Settings, TestBackend, TestGateway, eventually, http, spawn, within};
use tokio_tungstenite::tungstenite::Message;

fn expect_ids(response: &HttpResponse) {
    let request_id = response.header("x-amzn-requestid").unwrap();
    assert_eq!((request_id.len(), request_id.matches('-').count()), (36, 4), "a UUID");
    assert_eq!(response.header("x-amz-apigw-id").unwrap().len(), 16);
}

fn expect_error(response: &HttpResponse, status: u16, error_type: &str, message: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.error_type(), Some(error_type));
    assert_eq!(response.json(), json!({"message": message}));
}

#[tokio::test]
async fn a_post_writes_one_text_message_whatever_the_path_is_spelled_like() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    let encoded = id.replace('=', "%3D");
    let lower = id.replace('=', "%3d");
    let all: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for address in [gateway.public(), gateway.internal()] {
        for target in [
            format!("/prod/@connections/{id}"),
            format!("/prod/@connections/{encoded}"),
            format!("/prod/@connections/{lower}"),
            format!("/prod/@connections/{all}"),
            format!("/prod/%40connections/{encoded}"),
            format!("/prod//@connections/{encoded}"),
            format!("//prod/@connections/{encoded}/"),
            format!("/test/@connections/{encoded}"),
            format!("/_aws/execute-api/chat/prod/@connections/{encoded}"),
            format!("/prod/@connections/{encoded}?X-Amz-Signature=0&x=1"),
        ] {
            let response = http(address, "POST", &target, &[], b"hi").await;
            assert_eq!(response.status, 200, "{target}");
            assert!(response.body.is_empty());
            assert_eq!(response.header("content-length"), Some("0"));
            assert_eq!(response.header("content-type"), Some("application/json"));
            assert_eq!(response.error_type(), None);
            expect_ids(&response);
            assert_eq!(client.next_text().await, "hi", "{target}");
        }
        let by_host = [("Host", "chat.execute-api.localhost")];
        let target = format!("/prod/@connections/{encoded}");
        assert_eq!(http(address, "POST", &target, &by_host, b"hi").await.status, 200);
        assert_eq!(client.next_text().await, "hi");
    }
}

#[tokio::test]
async fn what_is_posted_arrives_as_text_and_empty_posts_too() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    let largest = vec![b'x'; 131_072];
    for (data, text) in [
        (b"\xff\xfe".as_slice(), "\u{fffd}\u{fffd}"),
        (b"", ""),
        ("\u{1f600}".as_bytes(), "\u{1f600}"),
        (b"\0", "\0"),
        (&largest, &"x".repeat(131_072)),
    ] {
        let response = gateway.post(&id, data).await;
        assert_eq!((response.status, response.body.len()), (200, 0));
        assert!(client.next_text().await == text);
    }
}

#[tokio::test]
async fn a_post_over_the_limit_is_413_without_a_type_or_a_body() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    for address in [gateway.public(), gateway.internal()] {
        for bytes in [131_073, 1_000_000, 8_000_000] {
            let target = format!("/prod/@connections/{id}");
            let response = http(address, "POST", &target, &[], &vec![b'x'; bytes]).await;
            assert_eq!((response.status, response.body.len()), (413, 0), "{bytes}");
            assert_eq!(response.error_type(), None);
            expect_ids(&response);
        }
    }
    assert_eq!(gateway.post(&id, "next").await.status, 200);
    assert_eq!(client.next_text().await, "next");
}

#[tokio::test]
async fn a_chunked_post_is_read_whole_and_bounded_too() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    let head = format!(
        "POST /prod/@connections/{id} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        gateway.internal()
    );
    let mut backend_side = RawClient::connect(gateway.internal()).await;
    backend_side.send(format!("{head}2\r\nhe\r\n3;x=1\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n").as_bytes()).await;
    assert_eq!(backend_side.response().await.status, 200);
    assert_eq!(client.next_text().await, "hello");
    backend_side.send(format!("{head}0\r\n\r\n").as_bytes()).await;
    assert_eq!(backend_side.response().await.status, 200, "the HTTP connection is kept");
    assert_eq!(client.next_text().await, "");
    let chunk = format!("20001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x20001));
    backend_side.send([head.as_bytes(), chunk.as_bytes()].concat().as_slice()).await;
    let response = backend_side.response().await;
    assert_eq!((response.status, response.body.len(), response.error_type()), (413, 0, None));

    let mut broken = RawClient::connect(gateway.internal()).await;
    broken.send(format!("{head}zz\r\n").as_bytes()).await;
    assert_eq!(broken.response().await.status / 100, 4);
    gateway.expect_alive(&backend).await;
}

#[tokio::test]
async fn the_data_type_header_chooses_the_kind_of_frame() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    let target = format!("/prod/@connections/{id}");
    let post = async |data_type| {
        http(gateway.internal(), "POST", &target, &[("x-tidegate-data-type", data_type)], b"\xff\0").await
    };
    assert_eq!(post("binary").await.status, 200);
    assert_eq!(client.next_message().await, Message::binary(&b"\xff\0"[..]));
    assert_eq!(post("text").await.status, 200);
    assert_eq!(client.next_message().await, Message::text("\u{fffd}\0"));
    for wrong in ["Binary", "base64", ""] {
        let response = post(wrong).await;
        assert_eq!((response.status, response.error_type()), (400, Some("BadRequestException")), "{wrong}");
        assert!(response.json()["message"].is_string());
        expect_ids(&response);
    }
}

#[tokio::test]
async fn a_get_says_since_when_a_client_is_connected_and_from_where() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = gateway.connect_with("/prod", &[("user-agent", "demo/1")]).await;
    let call = backend.next("CONNECT").await;
    let response = gateway.call("GET", call.connection_id(), b"").await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    expect_ids(&response);
    let info = response.json();
    assert_eq!(info.as_object().unwrap().len(), 3);
    assert_eq!(info["identity"], json!({"sourceIp": "127.0.0.1", "userAgent": "demo/1"}));
    let time = |info: &serde_json::Value, key: &str| {
        let text = info[key].as_str().unwrap().to_owned();
        assert!(text.len() == 24 && text.ends_with('Z') && text.as_bytes()[19] == b'.', "{text}");
        text
    };
    assert_eq!(time(&info, "connectedAt"), time(&info, "lastActiveAt"));

    let again = gateway.call("GET", call.connection_id(), b"").await.json();
    assert_eq!(again, info, "to ask is no activity");
    eventually("a post counts as activity", async || {
        gateway.post(call.connection_id(), "").await;
        client.next_text().await;
        let later = gateway.call("GET", call.connection_id(), b"").await.json();
        time(&later, "lastActiveAt") > time(&info, "lastActiveAt")
    })
    .await;

    let _raw = RawClient::upgrade(gateway.public(), "/prod").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    let identity = gateway.call("GET", &id, b"").await.json()["identity"].take();
    assert_eq!(identity, json!({"sourceIp": "127.0.0.1", "userAgent": ""}), "SDKs need the member");
}

#[tokio::test]
async fn a_delete_closes_with_awss_words_or_the_backends_own() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let longest = "r".repeat(123);
    for (query, code, reason) in [
        ("", 1000, "Connection Closed Normally"),
        ("?code=4001&reason=kicked", 4001, "kicked"),
        ("?code=3000", 3000, "Connection Closed Normally"),
        ("?code=4999&reason=", 4999, ""),
        ("?code=1000&reason=b%20y%C3%A9+x", 1000, "b y\u{e9} x"),
        (&format!("?reason={longest}"), 1000, &longest),
    ] {
        let (mut client, id) = gateway.client(&backend).await;
        let response = gateway.call("DELETE", &format!("{id}{query}"), b"").await;
        assert_eq!((response.status, response.body.len()), (204, 0), "{query}");
        expect_ids(&response);
        assert_eq!(client.next_close().await, (code, reason.to_owned()), "{query}");
        let disconnect = backend.next("DISCONNECT").await;
        assert_eq!(disconnect.connection_id(), id);
        assert_eq!(disconnect.closing(), (code.into(), reason.to_owned()), "{query}");
        for method in ["DELETE", "POST", "GET"] {
            let response = gateway.call(method, &id, b"").await;
            assert_eq!((response.status, response.error_type()), (410, Some("GoneException")), "{method}");
            assert!(response.body.is_empty());
        }
    }
    let (_client, id) = gateway.client(&backend).await;
    for query in ["code=1001", "code=999", "code=2999", "code=5000", "code=x", "code=", "code=-1", "code=1005"] {
        let response = gateway.call("DELETE", &format!("{id}?{query}"), b"").await;
        assert_eq!((response.status, response.error_type()), (400, Some("BadRequestException")), "{query}");
    }
    for reason in ["r".repeat(124), "%C3%A9".repeat(62)] {
        let response = gateway.call("DELETE", &format!("{id}?reason={reason}"), b"").await;
        assert_eq!(response.status, 400);
    }
    assert_eq!(gateway.call("GET", &id, b"").await.status, 200, "it is still there");
}

#[tokio::test]
async fn malformed_unknown_and_foreign_ids_are_told_apart() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).another_api("news").start().await;
    let client = gateway.connect("/_aws/execute-api/chat/prod").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    let call = async |api: &str, method: &str, id: &str| {
        let target = format!("/_aws/execute-api/{api}/prod/@connections/{id}");
        http(gateway.internal(), method, &target, &[], b"").await
    };
    for method in ["POST", "GET", "DELETE"] {
        let short = &id[..19];
        for wrong in ["x", short, "AAAAAAAAAAAAAAAAAAB=", "********************"] {
            let response = call("chat", method, wrong).await;
            expect_error(&response, 400, "BadRequestException", &format!("Invalid connectionId: {wrong}"));
            expect_ids(&response);
        }
        for gone in ["AAAAAAAAAAAAAAAAAAA=", "R0oXAdfD0kwCH6wxxxA="] {
            let response = call("chat", method, gone).await;
            assert_eq!((response.status, response.error_type()), (410, Some("GoneException")), "{gone}");
            expect_ids(&response);
        }
        assert_eq!(call("news", method, &id).await.status, 410, "of another API");
    }
    assert_eq!(call("chat", "GET", &id).await.status, 200);
    client.close(None).await;
}

#[tokio::test]
async fn a_listener_that_serves_nobody_answers_403() {
    let backend = TestBackend::start().await;
    let gateway =
        Settings::aws_proxy(&backend).public("connectionsApi: AWS_IAM").internal("connectionsApi: OFF").start().await;
    let (_client, id) = gateway.client(&backend).await;
    let target = format!("/prod/@connections/{id}");
    for method in ["POST", "GET", "DELETE"] {
        let response = http(gateway.internal(), method, &target, &[], b"").await;
        expect_error(&response, 403, "ForbiddenException", "Forbidden");
        let response = http(gateway.public(), method, &target, &[], b"").await;
        expect_error(&response, 403, "MissingAuthenticationTokenException", "Missing Authentication Token");
        let signed = [(
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/execute-api/aws4_request, SignedHeaders=host, Signature=00",
        )];
        let response = http(gateway.public(), method, &target, &signed, b"").await;
        let message = "Authorization header requires existence of an 'X-Amz-Date' header.";
        expect_error(&response, 403, "IncompleteSignatureException", message);
    }
    let text = Settings::aws_proxy(&backend).text().replacen("connectionsApi: NONE, ", "", 1);
    let gateway = TestGateway::start_with(config::load(&text, &|_| None).unwrap()).await;
    assert_eq!(http(gateway.public(), "GET", &target, &[], b"").await.status, 403, "AWS_IAM is the default");
}

#[tokio::test]
async fn other_paths_and_methods_lead_nowhere() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (_client, id) = gateway.client(&backend).await;
    for target in [
        format!("/nostage/@connections/{id}"),
        format!("/prod/@connections/{id}/more"),
        "/prod/@connections".to_owned(),
        "/prod/@connections/".to_owned(),
        format!("/@connections/{id}"),
        format!("/prod/connections/{id}"),
        format!("/_aws/execute-api/nobody/prod/@connections/{id}"),
        "/".to_owned(),
        "/prod".to_owned(),
        "/prod/@connections/%ff%fe".to_owned(),
        "*".to_owned(),
    ] {
        let response = http(gateway.internal(), "POST", &target, &[], b"").await;
        expect_error(&response, 403, "ForbiddenException", "Forbidden");
    }
    for method in ["PUT", "PATCH", "OPTIONS"] {
        let response = gateway.call(method, &id, b"").await;
        assert_eq!((response.status, response.error_type()), (403, Some("MissingAuthenticationTokenException")));
    }
}

#[tokio::test]
async fn posts_of_one_http_connection_arrive_in_their_order() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    let post = |number: usize| {
        let body = number.to_string();
        format!(
            "POST /prod/@connections/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let all: String = (0..200).map(post).collect();
    let mut backend_side = RawClient::connect(gateway.internal()).await;
    backend_side.send(all.as_bytes()).await;
    for number in 0..200 {
        assert_eq!(backend_side.response().await.status, 200);
        assert_eq!(client.next_text().await, number.to_string());
    }
}

/// A client whose socket takes little and that reads nothing.
async fn deaf_client(gateway: &tidegate_testing::TestGateway, backend: &TestBackend) -> (RawClient, String) {
    let mut client = RawClient::of(tidegate_testing::connect_narrow(gateway.public()).await);
    client.send(&tidegate_testing::handshake(gateway.public(), "/prod", &[])).await;
    assert_eq!(client.response().await.status, 101);
    (client, backend.next("CONNECT").await.connection_id().to_owned())
}

#[tokio::test]
async fn a_full_send_buffer_is_429_and_a_client_that_takes_nothing_is_closed() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend)
        .section("limits: { sendBufferBytes: 300000, slowClientTimeoutSeconds: 2 }")
        .start()
        .await;
    let (_deaf, id) = deaf_client(&gateway, &backend).await;
    let target = format!("/prod/@connections/{id}");
    let address = gateway.internal();
    let big = vec![b'x'; 100_000];
    let mut posts = FuturesUnordered::new();
    // What the kernel takes is answered; what waits behind it fills the buffer.
    let full = loop {
        assert!(posts.len() < 100, "the buffer is bounded");
        posts.push(http(address, "POST", &target, &[], &big));
        let answered = tokio::time::timeout(Duration::from_millis(50), posts.next()).await;
        match answered {
            Ok(Some(response)) if response.status != 200 => break response,
            Ok(_) | Err(_) => {}
        }
    };
    expect_error(&full, 429, "LimitExceededException", "Limit Exceeded");
    assert_eq!(full.header("retry-after"), Some("1"));
    expect_ids(&full);
    gateway.expect_alive(&backend).await;
    let disconnects = async {
        loop {
            let call = backend.next("DISCONNECT").await;
            if call.connection_id() == id {
                return call;
            }
        }
    };
    assert_eq!(disconnects.await.closing(), (1008, "Slow consumer".to_owned()));
    let mut gone = 0;
    while let Some(response) = posts.next().await {
        if response.status != 200 {
            assert_eq!((response.status, response.error_type()), (410, Some("GoneException")));
            gone += 1;
        }
    }
    assert!(gone > 0, "what waited was not written");
    assert_eq!(gateway.post(&id, "x").await.status, 410);
}

#[tokio::test]
async fn a_delete_first_writes_what_was_posted_before() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut deaf, id) = deaf_client(&gateway, &backend).await;
    let target = format!("/prod/@connections/{id}");
    let address = gateway.internal();
    let body = vec![b'x'; 130_000];
    let one =
        [format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 130000\r\n\r\n").as_bytes(), &body]
            .concat();
    // More than the socket takes: the last ones wait in the outbox.
    let mut posts = Vec::new();
    let stuck = loop {
        let mut client = RawClient::connect(address).await;
        client.send(&one).await;
        let mut answer = spawn(async move { client.response().await });
        if let Ok(response) = tokio::time::timeout(Duration::from_millis(100), &mut answer).await {
            assert_eq!(response.unwrap().status, 200);
            posts.push(());
        } else {
            break answer;
        }
    };
    assert_eq!(gateway.call("DELETE", &id, b"").await.status, 204);
    assert_eq!(gateway.post(&id, "too late").await.status, 410);
    for _ in 0..=posts.len() {
        let frame = deaf.next_frame().await.unwrap();
        assert_eq!((frame.first, frame.payload.len()), (0x81, 130_000));
    }
    assert_eq!(deaf.next_close().await, (1000, "Connection Closed Normally".to_owned()));
    assert_eq!(within("an answer", stuck).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_backend_gets_its_answer_though_its_data_were_not_wanted() {
    let backend = TestBackend::start().await;
    let gateway =
        Settings::aws_proxy(&backend).public("connectionsApi: AWS_IAM").internal("connectionsApi: NONE").start().await;
    let (_client, id) = gateway.client(&backend).await;
    let big = vec![b'x'; 8_000_000];
    let target = format!("/prod/@connections/{id}");
    let binary = [("x-tidegate-data-type", "wrong")];
    for (address, method, target, headers, status) in [
        (gateway.public(), "POST", &*target, [].as_slice(), 403),
        (gateway.internal(), "POST", &target, &binary, 400),
        (gateway.internal(), "PUT", &target, &[], 403),
        (gateway.internal(), "DELETE", &target, &[], 204),
        (gateway.internal(), "POST", "/nowhere/@connections/x", &[], 403),
        (gateway.internal(), "POST", "/readyz", &[], 405),
        (gateway.public(), "POST", "/prod", &[], 403),
    ] {
        let response = http(address, method, target, headers, &big).await;
        assert_eq!(response.status, status, "{method} {target}");
    }
    let response = http(gateway.internal(), "POST", &target, &[("Expect", "100-continue")], b"").await;
    assert_eq!(response.status, 410);
}
