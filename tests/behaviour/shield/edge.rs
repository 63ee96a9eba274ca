use tidegate_testing::{Process, Reply, Settings, TestBackend, TestClient, Tidegate, raw};

use crate::shield::handshake;

#[tokio::test]
async fn pages_that_are_not_listed_may_not_connect_and_hear_why() {
    let backend = TestBackend::start().await.echoing();
    let api = "allowOrigins: [ \"https://example.com\", \"https://*.example.com\" ]".to_owned();
    let gateway = Settings::aws_proxy(&backend).api(api).start().await;
    let address = gateway.public();
    let check = async |headers: &str, status: &str, why: &str| {
        let answer = raw(address, &handshake("a", headers)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(why), "{headers}: {answer}");
    };
    check("", "101", "").await;
    check("Origin: https://example.com\r\n", "101", "").await;
    check("Origin: https://a.example.com\r\n", "101", "").await;
    check("Origin: null\r\n", "403", "the Origin is `null`").await;
    check("Origin: https://example.com.evil.test\r\n", "403", "not one that this API allows").await;
    check("Origin: https://example.com:8443\r\n", "403", "not one that this API allows").await;
    check("Origin: HTTPS://EXAMPLE.COM\r\n", "403", "not written as browsers write it").await;
    check("Origin: https://example.com\r\nOrigin: https://example.com\r\n", "403", "several Origin").await;
    assert_eq!(backend.calls("CONNECT").len(), 3);
}

#[tokio::test]
async fn hosts_that_are_not_listed_are_not_answered_for() {
    let backend = TestBackend::start().await.echoing();
    let public = "allowedHosts: [ chat.test, \"*.example.com\" ]".to_owned();
    let gateway = Settings::aws_proxy(&backend).public(public).start().await;
    let address = gateway.public();
    for (host, status) in [
        ("chat.test", "101"),
        ("CHAT.test:8443", "101"),
        ("a.example.com", "101"),
        ("evil.test", "403"),
        ("chat.test.evil.test", "403"),
    ] {
        let answer = raw(address, &handshake(host, "")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
        assert!(status == "101" || answer.contains("does not answer for this Host"), "{answer}");
        let call = format!("GET /prod/@connections/AAAA HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = raw(address, call.as_bytes()).await;
        assert_eq!(answer.contains("does not answer for this Host"), status == "403", "{host}: {answer}");
    }
}

#[tokio::test]
async fn a_whole_url_as_the_target_cannot_name_a_host_that_is_not_listed() {
    let backend = TestBackend::start().await.echoing();
    let public = "allowedHosts: [ chat.test ]".to_owned();
    let gateway = Settings::aws_proxy(&backend).public(public).start().await;
    let address = gateway.public();
    for (target, host, status) in [
        ("http://chat.test/prod", "chat.test", "101"),
        ("http://chat.test/prod", "evil.test", "101"),
        ("http://evil.test/prod", "chat.test", "403"),
    ] {
        let request = String::from_utf8(handshake(host, "")).unwrap().replacen("/prod", target, 1);
        let answer = raw(address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target} {host}: {answer}");
    }
    assert!(backend.calls("CONNECT").iter().all(|call| call.context()["domainName"] == "chat.test"));
}

#[tokio::test]
async fn hostile_requests_are_refused_each_with_its_reason() {
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).start().await;
    let address = gateway.public();
    let mut bystander = TestClient::enter(address).await;
    let id = backend.last("CONNECT").await.context()["connectionId"].as_str().unwrap().to_owned();
    let check = async |bytes: Vec<u8>, status: &str, why: &str| {
        let answer = raw(address, &bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(why), "{status} {why}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("\r\nserver:"), "{answer}");
    };
    let post = |headers: &str, body: &str| {
        format!("POST /prod/@connections/{id} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}").into_bytes()
    };
    let both = "a request must have Content-Length or Transfer-Encoding, not both";
    let chunked = "2\r\nhi\r\n0\r\n\r\n";
    check(post("Content-Length: 12\r\nTransfer-Encoding: chunked\r\n", chunked), "400", both).await;
    check(post("Transfer-Encoding: chunked\r\ncontent-length: 12\r\n", chunked), "400", both).await;
    check(post("Content-Length: 2\r\nContent-Length: 3\r\n", "hi"), "400", "").await;
    check(post("Transfer-Encoding: gzip\r\n", chunked), "400", "").await;
    check(handshake("a\r\nHost: b", ""), "400", "one valid Host").await;
    check(handshake("a, b", ""), "400", "one valid Host").await;
    let absolute = String::from_utf8(handshake("a", "")).unwrap().replace("GET /prod", "GET http://me@a/prod");
    check(absolute.into_bytes(), "400", "the request target").await;
    check(handshake("a", &"X-Filler: a\r\n".repeat(200)), "431", "").await;
    check(handshake("a", &format!("X-Filler: {}\r\n", "a".repeat(40_000))), "431", "").await;
    check(format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(5000)).into_bytes(), "414", "").await;
    check(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".to_vec(), "400", "").await;
    // A length alone and chunks alone are fine.
    let answer = raw(address, &post("Transfer-Encoding: chunked\r\n", chunked)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(bystander.next_text().await, "hi");
    bystander.echo("still here").await;
}

#[tokio::test]
async fn a_redirect_of_a_backend_is_not_followed() {
    let backend = TestBackend::start_with(|_| Reply::redirect("http://127.0.0.1:1/")).await;
    let settings = Settings::aws_proxy(&backend);
    let gateway = settings.start().await;
    let answer = raw(gateway.public(), &handshake("a", "")).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let gateway = settings.routes("$default: { target: integrations/backend }").start().await;
    let mut client = TestClient::enter(gateway.public()).await;
    client.send("hello").await;
    assert!(client.next_text().await.contains("Internal server error"));
}

#[tokio::test]
async fn a_start_warns_of_pages_and_hosts_in_a_line_each_though_the_listener_is_loopback_and_the_demo_does_not() {
    let backend = TestBackend::start().await.echoing();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.yaml");
    std::fs::write(&config, Settings::aws_proxy(&backend).text()).unwrap();
    let mut gateway = Tidegate::launch(&config, &[]);
    let lines = gateway.lines_until("\"ready\"").await;
    let warnings: Vec<&String> = lines.iter().filter(|line| line.contains("\"WARN\"")).collect();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings.iter().any(|line| line.contains("any web page may connect")), "{warnings:#?}");
    assert!(warnings.iter().any(|line| line.contains("requests for any Host are accepted")), "{warnings:#?}");
    drop(gateway);

    let arguments = ["--log-format", "json", "demo", "--port", "0"];
    let mut demo = Process::tidegate(&arguments, &[]);
    let lines = demo.lines_until("chat page").await;
    assert!(lines.iter().any(|line| line.contains("\"ready\"")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("\"WARN\"")), "{lines:#?}");
}
