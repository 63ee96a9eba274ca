//! Bad handshakes: each gets its answer, and the gateway serves the next client.

use tidegate_testing::{HttpResponse, RawClient, Settings, TestBackend, handshake, http};

fn expect_error(what: &str, response: &HttpResponse, status: u16, error_type: &str) {
    assert_eq!(response.status, status, "{what}: {response:?}");
    assert_eq!(response.error_type(), Some(error_type), "{what}");
    assert!(response.json()["message"].is_string(), "{what}");
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_with_its_own_status() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let table = [
        ("no Upgrade", [("Upgrade", "")].as_slice(), 403),
        ("another upgrade", &[("Upgrade", "h2c")], 403),
        ("no Connection", &[("Connection", "keep-alive")], 403),
        ("no key", &[("Sec-WebSocket-Key", "")], 400),
        ("a short key", &[("Sec-WebSocket-Key", "dGhl")], 400),
        ("a key of 17 bytes", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZTE=")], 400),
        ("a key that is not base64", &[("Sec-WebSocket-Key", "!!!!IHNhbXBsZSBub25jZQ==")], 400),
        ("two keys", &[("Sec-WebSocket-Key", key), ("Sec-WebSocket-Key", key)], 400),
        ("an old version", &[("Sec-WebSocket-Version", "8")], 426),
        ("no version", &[("Sec-WebSocket-Version", "")], 426),
        ("two Authorization headers", &[("Authorization", "a"), ("Authorization", "b")], 400),
        ("two hosts", &[("Host", "a"), ("Host", "b")], 400),
        ("the same host twice", &[("Host", "a"), ("Host", "a")], 400),
        ("an empty host", &[("Host", "")], 400),
        ("a host with a user", &[("Host", "user@a")], 400),
        ("no host at all", &[("Host", "a b")], 400),
    ];
    for (what, headers, status) in table {
        let response = gateway.handshake("/prod", headers).await;
        let error_type = if status == 403 { "ForbiddenException" } else { "BadRequestException" };
        expect_error(what, &response, status, error_type);
        if status == 403 {
            assert_eq!(response.text(), r#"{"message":"Forbidden"}"#);
        }
        assert_eq!(response.header("sec-websocket-version"), (status == 426).then_some("13"), "{what}");
        gateway.expect_alive(&backend).await;
    }
    assert_eq!(backend.calls("CONNECT").len(), table.len(), "no backend was asked");
    let tolerated = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")];
    assert_eq!(gateway.handshake("/prod/", &tolerated).await.status, 101);
}

#[tokio::test]
async fn a_path_or_host_that_leads_nowhere_is_forbidden() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).another_api("news").start().await;
    let host = "chat.execute-api.localhost";
    for (target, host) in [
        ("/", host),
        ("/nostage", host),
        ("/PROD", host),
        ("/prod/more", host),
        ("/prod/@connections", host),
        ("/_aws/execute-api/nobody/prod", "localhost"),
        ("/_aws/execute-api/news/prod", host),
        ("/_aws/execute-api/chat", "localhost"),
        ("/prod", "nobody.execute-api.localhost"),
        ("/prod", "localhost"),
        ("/prod", "chat.example.com"),
        ("/%ff", host),
        ("/prod%2f", host),
    ] {
        let response = gateway.handshake(target, &[("Host", host)]).await;
        expect_error(target, &response, 403, "ForbiddenException");
        assert_eq!(response.text(), r#"{"message":"Forbidden"}"#);
    }
    for method in ["GET", "POST", "OPTIONS"] {
        let response = http(gateway.public(), method, "/prod", &[("Host", host)], b"").await;
        assert_eq!((response.status, response.error_type()), (403, Some("ForbiddenException")), "{method}");
    }
    let mut client = RawClient::connect(gateway.public()).await;
    let post = String::from_utf8(handshake(gateway.public(), "/prod", &[("Host", host)])).unwrap();
    client.send(post.replacen("GET", "POST", 1).as_bytes()).await;
    assert_eq!(client.response().await.status, 403);
    assert_eq!(gateway.handshake("/prod", &[("Host", "CHAT.execute-api.localhost")]).await.status, 403);
    assert_eq!(gateway.handshake("/prod?x=/y", &[("Host", "chat.Execute-API.localhost:99")]).await.status, 101);
    assert_eq!(gateway.handshake("/%70rod", &[("Host", host)]).await.status, 101);
    assert_eq!(backend.calls("CONNECT").len(), 2);
}

#[tokio::test]
async fn a_request_without_a_host_is_400() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let whole = String::from_utf8(handshake(gateway.public(), "/prod", &[])).unwrap();
    let without = whole.replace(&format!("Host: {}\r\n", gateway.public()), "");
    for bytes in [without.clone(), without.replace("HTTP/1.1", "HTTP/1.0")] {
        let mut client = RawClient::connect(gateway.public()).await;
        client.send(bytes.as_bytes()).await;
        expect_error(&bytes, &client.response().await, 400, "BadRequestException");
    }
    gateway.expect_alive(&backend).await;
}

#[tokio::test]
async fn a_key_is_any_16_bytes_in_base64_whatever_its_unused_bits_are() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    // The first is RFC 6455's own example, in section 11.3.1; its last bits belong to no byte.
    let example = ("AQIDBAUGBwgJCgsMDQ4PEC==", "OfS0wDaT5NoxF2gqm7Zj2YtetzM=");
    for (key, accept) in [example, ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")] {
        let response = gateway.handshake("/prod", &[("Sec-WebSocket-Key", key)]).await;
        assert_eq!((response.status, response.header("sec-websocket-accept")), (101, Some(accept)), "{key}");
    }
    for last in 'A'..='P' {
        let key = format!("AQIDBAUGBwgJCgsMDQ4PE{last}==");
        assert_eq!(gateway.handshake("/prod", &[("Sec-WebSocket-Key", &key)]).await.status, 101, "{key}");
    }
    for key in [
        "AQIDBAUGBwgJCgsMDQ4PEC",
        "AQIDBAUGBwgJCgsMDQ4PEC=",
        "AQIDBAUGBwgJCgsMDQ4PEC===",
        "AQIDBAUGBwgJCgsMDQ4PECA=",
        "AQIDBAUGBwgJCgsMDQ4PECAA",
        "AQIDBAUGBwgJCgsMDQ4P====",
        "AQIDBAUGBwgJCgsMDQ4PE_==",
        "AQIDBAUGBwgJ CgsMDQ4PEC==",
        "=QIDBAUGBwgJCgsMDQ4PEC==",
    ] {
        let response = gateway.handshake("/prod", &[("Sec-WebSocket-Key", key)]).await;
        expect_error(key, &response, 400, "BadRequestException");
    }
}

#[tokio::test]
async fn a_whole_url_as_the_target_counts_in_place_of_the_host() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).another_api("news").start().await;
    let sent = async |line: &str, headers: &[(&str, &str)]| {
        let mut client = RawClient::connect(gateway.public()).await;
        client.send(&handshake(gateway.public(), line, headers)).await;
        client.response().await
    };
    let port = gateway.public().port();
    for (authority, host) in [
        (format!("chat.execute-api.localhost:{port}"), "chat.execute-api.localhost"),
        (format!("chat.execute-api.localhost:{port}"), "news.execute-api.localhost"),
        (format!("chat.Execute-API.localhost:{port}"), "somewhere.example.com"),
    ] {
        for scheme in ["http", "https", "HTTP"] {
            let target = format!("{scheme}://{authority}/prod?a=b");
            assert_eq!(sent(&target, &[("Host", host)]).await.status, 101, "{target}");
            let call = backend.next("CONNECT").await;
            let context = call.context();
            assert_eq!(
                (&context["domainName"], &context["apiId"]),
                (&(&*authority).into(), &"chat".into()),
                "{target}"
            );
            let base = format!("http://{authority}/prod/@connections/");
            assert!(context["callbackUrl"].as_str().unwrap().starts_with(&base), "{context}");
            assert_eq!(call.event()["headers"]["Host"], authority);
            assert_eq!(call.event()["queryStringParameters"]["a"], "b");
        }
    }
    let callback = "http://chat.execute-api.localhost/prod/@connections/AAAAAAAAAAAAAAAAAAA=";
    for address in [gateway.public(), gateway.internal()] {
        assert_eq!(http(address, "GET", callback, &[("Host", "a")], b"").await.status, 410);
    }
    assert_eq!(http(gateway.internal(), "GET", "http://localhost/healthz", &[], b"").await.status, 200);
    let forbidden = sent("http://nobody.execute-api.localhost/prod", &[("Host", "chat.execute-api.localhost")]).await;
    expect_error("another host", &forbidden, 403, "ForbiddenException");
    assert_eq!(sent("http://chat.execute-api.localhost", &[("Host", "a")]).await.status, 403, "no path");
    let target = "http://chat.execute-api.localhost/prod";
    for (what, target, hosts) in [
        ("no Host", target, [].as_slice()),
        ("two Hosts", target, &[("Host", "a"), ("Host", "a")]),
        ("a Host that is none", target, &[("Host", "a b")]),
        ("a user", "http://user@chat.execute-api.localhost/prod", &[("Host", "a")]),
        ("a user and a password", "http://user:pass@chat.execute-api.localhost/prod", &[("Host", "a")]),
        ("no host in the URL", "http:///prod", &[("Host", "a")]),
        ("another scheme", "ftp://chat.execute-api.localhost/prod", &[("Host", "a")]),
        ("a host alone", "chat.execute-api.localhost:80", &[("Host", "a")]),
    ] {
        let mut bytes = String::from_utf8(handshake(gateway.public(), target, hosts)).unwrap();
        if hosts.is_empty() {
            bytes = bytes.replace(&format!("Host: {}\r\n", gateway.public()), "");
        }
        let mut client = RawClient::connect(gateway.public()).await;
        client.send(bytes.as_bytes()).await;
        let response = client.response().await;
        assert_eq!(response.status, 400, "{what}: {response:?}");
    }
}

#[tokio::test]
async fn a_url_of_4096_bytes_is_taken_and_a_longer_one_is_not() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let longest = format!("/prod?{}", "x".repeat(4096 - 6));
    assert_eq!(gateway.handshake(&longest, &[]).await.status, 101);
    let response = gateway.handshake(&format!("{longest}x"), &[]).await;
    expect_error("4097 bytes", &response, 414, "BadRequestException");
    gateway.expect_alive(&backend).await;
}

#[tokio::test]
async fn headers_over_32_kib_or_too_many_are_431() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let large = "x".repeat(20_000);
    let twice = [("x-a", &*large), ("x-b", &*large)];
    assert_eq!(gateway.handshake("/prod", &twice).await.status, 431);
    let many: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (&**name, "1")).collect();
    assert_eq!(gateway.handshake("/prod", &many).await.status, 431);
    assert_eq!(gateway.handshake("/prod", &twice[..1]).await.status, 101);
    gateway.expect_alive(&backend).await;
}

#[tokio::test]
async fn what_is_not_http_ends_its_own_connection() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /prod HTTP/9.9\r\n\r\n",
        b"GET /prod HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /prod HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[b'A'; 100_000],
    ] {
        for address in [gateway.public(), gateway.internal()] {
            let mut client = RawClient::connect(address).await;
            // The gateway may have closed before all is sent.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, bytes).await;
            let answer = client.end().await;
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
        }
    }
    gateway.expect_alive(&backend).await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_is_cut_off() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { handshakeTimeoutSeconds: 1 }").start().await;
    let mut silent = RawClient::connect(gateway.public()).await;
    let mut half = RawClient::connect(gateway.public()).await;
    let whole = handshake(gateway.public(), "/prod", &[]);
    half.send(&whole[..whole.len() - 10]).await;
    let mut internal = RawClient::connect(gateway.internal()).await;
    internal.send(b"GET /healthz HT").await;
    // One that is in time stays.
    let (mut client, id) = gateway.client(&backend).await;
    tokio::join!(silent.end(), half.end(), internal.end());
    assert_eq!(gateway.post(&id, "still here").await.status, 200);
    assert_eq!(client.next_text().await, "still here");
}

#[tokio::test]
async fn clients_cannot_connect_on_the_internal_listener() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = RawClient::connect(gateway.internal()).await;
    client.send(&handshake(gateway.internal(), "/prod", &[])).await;
    expect_error("internal", &client.response().await, 403, "ForbiddenException");
    for (target, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/nowhere", 403)] {
        assert_eq!(http(gateway.internal(), "GET", target, &[], b"").await.status, status, "{target}");
        assert_eq!(http(gateway.public(), "GET", target, &[], b"").await.status, 403, "{target}");
    }
}
