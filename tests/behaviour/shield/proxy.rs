use tidegate_testing::{
    Process, Settings, TestBackend, TestGateway, connect_from, eventually, free_port, raw, raw_on, within,
};
use tokio::net::TcpStream;

use crate::shield::handshake;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";

fn v2() -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x21, 0x11, 0, 12], &addresses].concat()
}

async fn start(trusted: &str) -> (TestGateway, TestBackend) {
    let backend = TestBackend::start().await.echoing();
    let public = format!("proxyProtocol: true, trustedProxies: [ {trusted} ]");
    (Settings::aws_proxy(&backend).public(public).start().await, backend)
}

#[tokio::test]
async fn both_versions_tell_who_the_client_is() {
    let (gateway, backend) = start("127.0.0.0/8").await;
    for header in [V1.to_vec(), v2()] {
        let mut stream = TcpStream::connect(gateway.public()).await.unwrap();
        // What the client itself says about where it comes from counts for nothing: it is no trusted proxy.
        let bytes = [header, handshake("chat.test", "X-Forwarded-For: 10.9.8.7\r\n")].concat();
        assert!(raw_on(&mut stream, &bytes).await.starts_with("HTTP/1.1 101"));
        let call = backend.last("CONNECT").await;
        assert_eq!(call.context()["identity"]["sourceIp"], "203.0.113.7");
        let event: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(event["headers"]["X-Forwarded-For"], "203.0.113.7");
        assert_eq!(event["headers"]["X-Forwarded-Port"], "443");
        // Whoever called the listener itself would have to send a PROXY header too.
        let callback_url = call.context()["callbackUrl"].as_str().unwrap().to_owned();
        assert!(callback_url.starts_with("http://198.51.100.1:443/prod/@connections/"), "{callback_url}");
    }
}

#[tokio::test]
async fn a_header_from_an_untrusted_peer_or_none_from_a_trusted_one_is_the_end() {
    let (gateway, backend) = start("127.0.0.2").await;
    let address = gateway.public();
    let bytes = [V1, &handshake("chat.test", "")].concat();
    assert_eq!(raw(address, &bytes).await, "");
    let mut trusted = connect_from("127.0.0.2", address).await.unwrap();
    assert_eq!(raw_on(&mut trusted, &handshake("chat.test", "")).await, "");
    let mut trusted = connect_from("127.0.0.2", address).await.unwrap();
    assert!(raw_on(&mut trusted, &bytes).await.starts_with("HTTP/1.1 101"));
    assert_eq!(backend.calls("CONNECT").len(), 1);

    // Where nobody expects one it is no HTTP, whoever sends it.
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).start().await;
    let answer = raw(gateway.public(), &bytes).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(backend.calls("CONNECT").is_empty());
}

#[tokio::test]
async fn a_header_cut_short_at_any_byte_harms_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (gateway, _backend) = start("127.0.0.0/8").await;
    let address = gateway.public();
    for header in [V1.to_vec(), v2()] {
        for length in 0..header.len() {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&header[..length]).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(within("the end", stream.read(&mut [0; 1])).await.unwrap_or(0), 0, "{length}");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(raw_on(&mut stream, &[header, handshake("a", "")].concat()).await.starts_with("HTTP/1.1 101"));
    }
}

#[tokio::test]
async fn forwarding_headers_count_from_trusted_proxies_alone() {
    let backend = TestBackend::start().await.echoing();
    let public = "trustedProxies: [ 127.0.0.2 ]".to_owned();
    let top = "limits: { perAddress: { connections: 1 } }".to_owned();
    let gateway = Settings::aws_proxy(&backend).public(public).section(top).start().await;
    let address = gateway.public();
    let bytes = handshake("chat.test", "X-Forwarded-For: 203.0.113.7\r\n");
    let mut spoofed = TcpStream::connect(address).await.unwrap();
    assert!(raw_on(&mut spoofed, &bytes).await.starts_with("HTTP/1.1 101"));
    assert_eq!(backend.last("CONNECT").await.context()["identity"]["sourceIp"], "127.0.0.1");
    let mut first = connect_from("127.0.0.2", address).await.unwrap();
    assert!(raw_on(&mut first, &bytes).await.starts_with("HTTP/1.1 101"));
    assert_eq!(backend.last("CONNECT").await.context()["identity"]["sourceIp"], "203.0.113.7");
    // The limit is of the client behind the proxy, not of the proxy.
    let mut second = connect_from("127.0.0.2", address).await.unwrap();
    assert!(raw_on(&mut second, &bytes).await.starts_with("HTTP/1.1 429"));
    let other = handshake("chat.test", "X-Forwarded-For: 203.0.113.8\r\n");
    let mut third = connect_from("127.0.0.2", address).await.unwrap();
    assert!(raw_on(&mut third, &other).await.starts_with("HTTP/1.1 101"));
}

#[tokio::test]
async fn proxy_headers_without_trusted_proxies_are_a_mistake() {
    let backend = TestBackend::start().await.echoing();
    let settings = Settings::aws_proxy(&backend).public("proxyProtocol: true");
    assert!(settings.problems().starts_with("listeners.public.proxyProtocol: it needs `trustedProxies`"));
}

/// The load balancer of deploy/compose.yaml before one node.
fn shipped_balancer(gateway: &TestGateway, clients: u16, backends: u16) -> String {
    let (public, internal) = (gateway.public(), gateway.internal());
    let mut text = include_str!("../../../deploy/compose/haproxy.cfg").to_owned();
    let mut replace = |from: &str, to: String| {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, &to);
    };
    for name in ["node-1", "node-2", "node-3"] {
        replace(&format!(" {name}:8080"), format!(" {public} check port {}", internal.port()));
        replace(&format!(" {name}:8081"), format!(" {internal} check port {}", internal.port()));
    }
    replace("bind :8080", format!("bind 127.0.0.1:{clients}"));
    replace("bind :8081", format!("bind 127.0.0.1:{backends}"));
    replace("check port 8081", String::new());
    text
}

#[tokio::test]
async fn behind_the_shipped_load_balancer_nothing_that_a_client_says_of_its_way_counts() {
    let backend = TestBackend::start().await.echoing();
    let public = "trustedProxies: [ 127.0.0.1 ]".to_owned();
    let gateway = Settings::aws_proxy(&backend).public(public).start().await;
    let (clients, backends) = (free_port(), free_port());
    let file = tempfile::NamedTempFile::with_suffix(".cfg").unwrap();
    std::fs::write(file.path(), shipped_balancer(&gateway, clients, backends)).unwrap();
    let _haproxy = Process::start("/usr/sbin/haproxy", &["-f", file.path().to_str().unwrap()], &[]);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], clients));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let lies = format!(
        "X-Forwarded-For: 10.9.8.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n\
         traceparent: 00-{trace}-b7ad6b7169203331-01\r\nX-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1\r\n"
    );
    eventually("the balancer lets a client through", async || {
        let Ok(mut stream) = TcpStream::connect(address).await else { return false };
        raw_on(&mut stream, &handshake("chat.test", &lies)).await.starts_with("HTTP/1.1 101")
    })
    .await;
    let call = backend.last("CONNECT").await;
    assert_eq!(call.context()["identity"]["sourceIp"], "127.0.0.1");
    let event: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(event["headers"]["X-Forwarded-Proto"], "http");
    assert_eq!(event["headers"]["X-Forwarded-Port"], clients.to_string());
    let seen = event.to_string() + call.header("traceparent");
    assert!(!seen.contains(trace) && !seen.contains("5759e988") && !seen.contains("10.9.8.7"), "{seen}");
}
