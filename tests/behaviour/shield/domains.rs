use tidegate_testing::{Settings, TestBackend, TestClient, raw};
use tokio::net::TcpStream;

use crate::shield::handshake;

const DOMAINS: &str = "domainNames:\n  chat.test: { apiMappings: [ { apiMappingKey: \"\", apiId: chat, stage: prod }, { \
                       apiMappingKey: beta/v1, apiId: chat, stage: beta } ] }\n  \"*.wild.test\": { apiMappings: [ { \
                       apiMappingKey: b, apiId: chat, stage: beta } ] }";

#[tokio::test]
async fn a_domains_paths_lead_to_its_stages_and_callbacks_come_back_the_same_way() {
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).stages(&["prod", "beta"]).section(DOMAINS).start().await;
    let address = gateway.public();
    let port = address.port();
    for (url, stage, callback) in [
        ("ws://chat.test/", "prod", "http://chat.test/@connections/"),
        ("ws://CHAT.test./", "prod", "http://CHAT.test./@connections/"),
        ("ws://chat.test/beta/v1", "beta", "http://chat.test/beta/v1/@connections/"),
        ("ws://a.wild.test/b", "beta", "http://a.wild.test/b/@connections/"),
        // No name of the gateway's.
        ("ws://other.test/prod", "prod", &format!("http://{address}/prod/@connections/")),
        ("ws://chat.test/_aws/execute-api/chat/beta", "beta", "http://chat.test/beta/v1/@connections/"),
    ] {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut client = TestClient::on(stream, url, &[]).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        client.echo("hello").await;
        let context = backend.last("CONNECT").await.context();
        assert_eq!(context["stage"], stage, "{url}");
        let callback_url = context["callbackUrl"].as_str().unwrap();
        assert!(callback_url.starts_with(callback), "{url}: {callback_url}");
        let host = callback.split('/').nth(2).unwrap();
        assert_eq!(context["domainName"], host, "{url}");
        let path = callback_url.strip_prefix(&format!("http://{host}")).unwrap();
        let host = host.split(':').next().unwrap();
        let post = format!("POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 2\r\n\r\nhi");
        let answer = raw(address, post.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{url}: {answer}");
        assert_eq!(client.next_text().await, "hi");
    }
    for (host, path) in [
        ("chat.test", "/prod"),
        ("chat.test", "/beta"),
        ("chat.test", "/beta/v1/more"),
        ("a.wild.test", "/"),
        ("a.wild.test", "/prod"),
        ("a.b.wild.test", "/b"),
    ] {
        let bytes = String::from_utf8(handshake(host, "")).unwrap().replace("GET /prod", &format!("GET {path}"));
        let answer = raw(address, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{host}{path}: {answer}");
    }
}

#[tokio::test]
async fn mistakes_in_domains_have_their_place() {
    let backend = TestBackend::start().await.echoing();
    let check = |top: &str, expected: &str| {
        let problems = Settings::aws_proxy(&backend).stages(&["prod", "beta"]).section(top).problems();
        assert!(problems.contains(expected), "{problems}");
    };
    let mapping = |mapping: &str| format!("domainNames: {{ chat.test: {{ apiMappings: [ {mapping} ] }} }}");
    check(&mapping("{ apiId: other, stage: prod }"), "apiMappings[0].apiId: there is no API `other`");
    check(&mapping("{ apiId: chat, stage: other }"), "apiMappings[0].stage: API `chat` has no stage `other`");
    check(&mapping("{ apiMappingKey: /a, apiId: chat, stage: prod }"), "`/a` is not a base path");
    check(
        &mapping("{ apiId: chat, stage: prod }, { apiId: chat, stage: beta }"),
        "apiMappings[1].apiMappingKey: the key `` is used twice",
    );
    check("domainNames: { \"Chat.test:80\": { apiMappings: [] } }", "not a domain name");
}
