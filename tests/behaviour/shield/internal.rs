//! The internal listener answers programs that call it by a name of its own, and no web page.

use std::net::SocketAddr;

use tidegate_testing::{Settings, TestBackend, TestClient, TestGateway, Tidegate, raw};

const PATHS: [&str; 11] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/version",
    "/state",
    "/log-level",
    "/openapi.json",
    "/nodes",
    "/connections",
    "/prod/@connections/AAAAAAAAAAAAAAAAAAA%3D",
    "/nowhere",
];

/// The status line and the body of an answer to a request of HTTP/1.1 without a body.
async fn ask(address: SocketAddr, method: &str, path: &str, host: &str, headers: &str) -> (String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: 0\r\n\r\n");
    let answer = raw(address, request.as_bytes()).await;
    (answer[9..12].to_owned(), answer)
}

#[tokio::test]
async fn a_loopback_listener_answers_on_no_path_for_a_name_that_was_made_to_lead_there() {
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).start().await;
    let address = gateway.internal();
    for path in PATHS {
        for host in ["evil.test".to_owned(), format!("evil.test:{}", address.port()), "10.0.0.7".to_owned()] {
            let (status, answer) = ask(address, "GET", path, &host, "").await;
            assert_eq!(status, "403", "{path} {host}: {answer}");
            assert!(answer.contains("does not answer for this Host"), "{path} {host}: {answer}");
        }
        for host in [
            address.to_string(),
            "localhost".to_owned(),
            format!("LOCALHOST:{}", address.port()),
            "chat.execute-api.localhost".to_owned(),
            "127.0.0.9:1".to_owned(),
            "[::1]:8081".to_owned(),
        ] {
            let (_, answer) = ask(address, "GET", path, &host, "").await;
            assert!(!answer.contains("does not answer for this Host"), "{path} {host}: {answer}");
        }
    }
    // A level that somebody else's page sets.
    let (status, _) = ask(address, "PUT", "/log-level", "evil.test", "").await;
    assert_eq!(status, "403");
    // Which Host is meant must be clear.
    for request in
        ["GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n", "GET /metrics HTTP/1.1\r\n\r\n"]
    {
        let answer = raw(address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request}: {answer}");
    }
    // The authority of an absolute target counts as the Host.
    let answer = raw(address, b"GET http://evil.test/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // A health check of a load balancer names none.
    let answer = raw(address, b"GET /readyz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[tokio::test]
async fn allowed_hosts_hold_for_operators_paths_too_and_other_addresses_answer_for_all_without_them() {
    let backend = TestBackend::start().await.echoing();
    let settings = Settings::aws_proxy(&backend);
    let gateway = settings.clone().internal("allowedHosts: [ ops.test ]").start().await;
    let address = gateway.internal();
    for path in PATHS {
        let (status, answer) = ask(address, "GET", path, "localhost", "").await;
        assert!(status == "403" && answer.contains("does not answer for this Host"), "{path}: {answer}");
        let (_, answer) = ask(address, "GET", path, "ops.test", "").await;
        assert!(!answer.contains("does not answer for this Host"), "{path}: {answer}");
    }
    let text = settings.text().replacen("internal: { address: 127.0.0.1:0", "internal: { address: 0.0.0.0:0", 1);
    let gateway = TestGateway::start_with(tidegate::config::load(&text, &|_| None).unwrap()).await;
    let address = SocketAddr::from(([127, 0, 0, 1], gateway.internal().port()));
    // The address of a pod, as its node's probe knows it.
    for host in ["10.244.0.7:8081", "tidegate-internal.tidegate.svc:8081"] {
        assert_eq!(ask(address, "GET", "/readyz", host, "").await.0, "200", "{host}");
    }
}

#[tokio::test]
async fn an_unsigned_call_that_a_page_makes_changes_nothing() {
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = TestClient::enter(gateway.public()).await;
    let id = backend.last("CONNECT").await.context()["connectionId"].as_str().unwrap().to_owned();
    let of_pages = [
        "Origin: http://127.0.0.1:9000\r\n",
        "Origin: null\r\n",
        "Origin: http://127.0.0.1:9000\r\nSec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ];
    let calls = [
        ("POST", "/prod/@broadcast".to_owned()),
        ("POST", "/prod/@groups/a".to_owned()),
        ("POST", "/prod/@send".to_owned()),
        ("POST", format!("/prod/@connections/{id}")),
        ("DELETE", format!("/prod/@connections/{id}")),
        ("PUT", format!("/prod/@groups/a/connections/{id}")),
        ("PATCH", "/prod/@broadcast".to_owned()),
    ];
    for address in [gateway.public(), gateway.internal()] {
        for (method, path) in &calls {
            for headers in of_pages {
                let (status, answer) = ask(address, method, path, "localhost", headers).await;
                assert!(
                    status == "403" && answer.contains("a web page may not"),
                    "{method} {path} {headers}: {answer}"
                );
            }
        }
        // Reading is left alone: a page does not see the answer.
        let path = format!("/prod/@connections/{id}");
        assert_eq!(ask(address, "GET", &path, "localhost", "Origin: http://a.test\r\n").await.0, "200");
    }
    for (method, path) in [("PUT", "/log-level"), ("POST", "/metrics"), ("DELETE", "/nodes"), ("POST", "/connections")]
    {
        for headers in of_pages {
            let (status, answer) = ask(gateway.internal(), method, path, "localhost", headers).await;
            assert!(status == "403" && answer.contains("a web page may not"), "{method} {path} {headers}: {answer}");
        }
    }
    // A program does the same, and is the first that is heard.
    for (headers, text) in [("", "one"), ("Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: none\r\n", "two")] {
        let post =
            format!("POST /prod/@broadcast HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 3\r\n\r\n{text}");
        let answer = raw(gateway.internal(), post.as_bytes()).await;
        assert!(answer.contains(r#""delivered":1"#), "{answer}");
        assert_eq!(client.next_text().await, text);
    }
}

#[tokio::test]
async fn what_is_refused_has_its_line_and_its_reason() {
    let backend = TestBackend::start().await.echoing();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.yaml");
    std::fs::write(&config, Settings::aws_proxy(&backend).text()).unwrap();
    let mut gateway = Tidegate::serve(&config, &[]).await;
    let address = gateway.internal;
    ask(address, "GET", "/metrics", "evil.test", "").await;
    let line = gateway.process.line_with("\"Host refused\"").await;
    assert!(line.contains("\"audit\"") && line.contains("evil.test"), "{line}");
    ask(address, "PUT", "/log-level", "localhost", "Origin: http://evil.test\r\n").await;
    let line = gateway.process.line_with("\"web page refused\"").await;
    assert!(line.contains("\"audit\"") && line.contains("http://evil.test") && line.contains("/log-level"), "{line}");
    ask(address, "POST", "/prod/@broadcast", "localhost", "Origin: http://evil.test\r\n").await;
    let line = gateway.process.line_with("\"@connections call\"").await;
    assert!(line.contains("\"audit\"") && line.contains("/@broadcast") && line.contains("403"), "{line}");
    let (_, metrics) = ask(address, "GET", "/metrics", "localhost", "").await;
    for reason in ["hostNotAllowed", "fromPage"] {
        assert!(metrics.contains(reason), "{reason}: {metrics}");
    }
}
