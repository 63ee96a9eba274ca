//! Connections to backends: small servers, HTTP/2, TLS.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Version;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tidegate::app::Gateway;
use tidegate_http::http_client::HttpClient;
use tidegate_testing::{Gate, Relay, Reply, Settings, TestBackend, TestGateway, eventually};
use tokio::net::TcpListener;

/// Serves one connection after the other with a backlog of 5, as `python -m http.server` does, and answers each message
/// with its own body.
fn start_single_threaded() -> SocketAddr {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(5).unwrap();
    let listener: std::net::TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let reply = serde_json::json!({"statusCode": 200, "body": event["body"]}).to_string();
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", reply.len());
            let _ = (&stream).write_all([head.as_bytes(), reply.as_bytes()].concat().as_slice());
        }
    });
    address
}

#[tokio::test]
async fn a_backend_with_a_backlog_of_5_loses_nothing_of_a_burst() {
    let backend = start_single_threaded();
    let gateway = Settings::of(&format!("http://{backend}"), "AWS_PROXY").start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(gateway.connect("/prod").await);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        for message in 0..10 {
            client.send(&format!("{number}/{message}")).await;
        }
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut replies = HashSet::new();
        for _ in 0..10 {
            replies.insert(client.next_text().await);
        }
        let expected: HashSet<String> = (0..10).map(|message| format!("{number}/{message}")).collect();
        assert_eq!(replies, expected);
    }
    gateway.drain().await;
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge_where_it_is_asked_for() {
    let backend = TestBackend::start_http2().await;
    backend.answer_with(|call| if call.event_type() == "MESSAGE" { Reply::body("reply") } else { Reply::ok() });
    for settings in [Settings::aws_proxy(&backend), Settings::http_proxy(&backend)] {
        let gateway = settings.integration("http2: true").start().await;
        let (mut client, _) = gateway.client(&backend).await;
        for _ in 0..100 {
            client.send(r#"{"action":"ask"}"#).await;
        }
        for _ in 0..100 {
            assert!(client.next_text().await.contains("reply"));
            let call = backend.next("MESSAGE").await;
            assert_eq!(call.version, Version::HTTP_2);
            assert_eq!(call.uri.authority().unwrap().as_str(), backend.address().to_string());
            assert_eq!(call.uri.path(), "/events");
        }
        gateway.drain().await;
        backend.next("DISCONNECT").await;
    }
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    gateway.connect("/prod").await;
    assert_eq!(backend.next("CONNECT").await.version, Version::HTTP_11);
}

#[tokio::test]
async fn an_https_backend_is_trusted_by_its_own_authority_and_no_other_is() {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(parameters, authority_key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], server_key.serialize_der().try_into().unwrap())
        .unwrap();
    let backend = TestBackend::start_tls(tls).await;
    let settings = Settings::aws_proxy(&backend);
    assert!(backend.url().starts_with("https://"));

    let roots = [authority.der().clone()];
    let trusting = move |tasks| HttpClient::with_roots(tasks, roots).unwrap();
    let gateway =
        TestGateway { gateway: Gateway::builder(settings.config()).http_client(trusting).start().await.unwrap() };
    let (mut client, _) = gateway.client(&backend).await;
    backend.answer("MESSAGE", Reply::body("over TLS"));
    client.send(r#"{"action":"ask"}"#).await;
    assert_eq!(client.next_text().await, "over TLS");
    gateway.drain().await;
    assert_eq!(backend.calls("DISCONNECT").len(), 1);

    let gateway = settings.start().await;
    assert_eq!(gateway.handshake("/prod", &[]).await.status, 502);
    assert_eq!(backend.calls("CONNECT").len(), 1, "nothing was sent");
}

#[tokio::test]
async fn while_a_crowd_waits_for_the_backend_a_client_with_no_room_left_is_told_so() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend)
        .integration("maxConnections: 1")
        .section("limits: { concurrentDispatches: 1024 }")
        .start()
        .await;
    let (mut client, id) = gateway.client(&backend).await;
    let gate = Gate::default();
    backend.answer("MESSAGE", Reply::body("first").held(&gate));
    let sent = 1024 + 2;
    for number in 0..sent {
        client.send(&json!({"action": "ask", "number": number}).to_string()).await;
    }
    for _ in 1024..sent {
        let frame = client.next_json().await;
        assert_eq!((&frame["message"], &frame["connectionId"]), (&json!("Too Many Requests"), &json!(id)));
    }
    gate.open();
    assert_eq!(client.next_text().await, "first");
    eventually("the crowd is served", async || backend.calls("MESSAGE").len() == 1024).await;
    backend.answer("MESSAGE", Reply::body("again"));
    client.send(r#"{"action":"ask"}"#).await;
    assert_eq!(client.next_text().await, "again");
}

#[tokio::test]
async fn no_more_connections_are_opened_than_allowed() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).integration("maxConnections: 2").start().await;
    backend.answer_with(|_| Reply::body("x"));
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(gateway.client(&backend).await.0);
    }
    for client in &mut clients {
        for _ in 0..10 {
            client.send(r#"{"action":"ask"}"#).await;
        }
    }
    for client in &mut clients {
        for _ in 0..10 {
            client.next_text().await;
        }
    }
    assert!(backend.in_flight_max() <= 2);
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_meanwhile_loses_no_event() {
    // Each answer announces that the connection ends.
    let backend = TestBackend::start().await;
    backend.answer_with(|_| Reply::body("x").header("connection", "close"));
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, _) = gateway.client(&backend).await;
    for _ in 0..50 {
        client.send(r#"{"action":"ask"}"#).await;
        assert_eq!(client.next_text().await, "x");
    }
    gateway.drain().await;
    assert_eq!(backend.calls("DISCONNECT").len(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_the_integration_says() {
    let backend = TestBackend::start().await;
    // Longer than any setting here.
    backend.answer_with(|_| Reply::body("reply").header("keep-alive", "timeout=3600"));
    let relay = Relay::start(&backend, 0, |_| Box::pin(async {})).await;
    let routes = "$default: { target: integrations/backend, routeResponseSelectionExpression: $default }, \
                  other: { target: integrations/other, routeResponseSelectionExpression: $default }";
    let settings = |backend_idle: &str, other_idle: &str| {
        Settings::of(&relay.url(), "AWS_PROXY").routes(routes).integration(format!(
            "integrationUri: \"{0}/\"{backend_idle} }}, other: {{ integrationType: AWS_PROXY, integrationUri: \
             \"{0}/other\"{other_idle}",
            relay.url()
        ))
    };
    // None may be idle, so each call has a connection of its own.
    let mut gateway = settings(", connectionIdleMillis: 0", "").start().await;
    let mut client = gateway.connect("/prod").await;
    let mut opened = async |messages: &[&str]| {
        let before = relay.connections();
        for message in messages {
            client.send(message).await;
            assert_eq!(client.next_text().await, "reply");
        }
        relay.connections() - before
    };
    let (one, other) = ("x", r#"{"action":"other"}"#);
    assert_eq!(opened(&[one, one, one]).await, 3);
    assert_eq!(opened(&[other, other, other]).await, 3, "the least of those who share an address counts");

    gateway.reload(&settings("", ""));
    assert!(opened(&[one, other, one, other]).await <= 1, "the backend's own word counts");
    gateway.reload(&settings(", connectionIdleMillis: 3600000", ", connectionIdleMillis: 0"));
    // The first may find a connection that was kept.
    assert!(opened(&[one, other, one, other]).await >= 3);
    gateway.reload(&settings(", connectionIdleMillis: 3600000", ""));
    assert!(opened(&[one, other, one, other]).await <= 1);
}

#[tokio::test]
async fn a_backend_that_accepts_and_says_nothing_costs_its_own_calls_alone() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend)
        .timeout_millis(300)
        .integration(format!(
            "integrationUri: \"${{env:BACKEND}}/\" }}, silent: {{ integrationType: AWS_PROXY, timeoutInMillis: 300, \
             integrationUri: \"http://{}/\"",
            silent.local_addr().unwrap()
        ))
        .route("silence: { target: integrations/silent }")
        .start()
        .await;
    let (mut client, _) = gateway.client(&backend).await;
    for _ in 0..10 {
        client.send(r#"{"action":"silence"}"#).await;
    }
    backend.answer("MESSAGE", Reply::body("here"));
    client.send(r#"{"action":"ask"}"#).await;
    assert_eq!(client.next_text().await, "here");
    for _ in 0..10 {
        assert_eq!(client.next_json().await["message"], "Endpoint request timed out");
    }
}
