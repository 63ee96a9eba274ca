//! Callback URLs begin with a name of the gateway's own or with the address that the client connected to, and with nothing
//! else.

use std::net::{Ipv4Addr, SocketAddr};

use tidegate::app::Gateway;
use tidegate::config;
use tidegate_testing::{RawClient, Settings, TestBackend, handshake, http};

/// A client that connects to `address` and says that it is for `host`.
async fn connect(address: SocketAddr, target: &str, host: &str, headers: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(address).await;
    let headers = [&[("Host", host)][..], headers].concat();
    client.send(&handshake(address, target, &headers)).await;
    assert_eq!(client.response().await.status, 101, "{host}");
    client
}

#[tokio::test]
async fn a_host_that_is_no_name_of_the_gateway_gets_into_no_event() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let address = gateway.public();
    let port = address.port();
    for host in [
        "169.254.169.254".to_owned(),
        "evil.example:81".to_owned(),
        format!("evil.example:{port}"),
        format!("chat.execute-api.evil.example:{port}"),
        format!("chat.execute-api.localhost.evil.example:{port}"),
        "chat.execute-api.localhost:81".to_owned(),
        "chat.execute-api.localhost".to_owned(),
        "localhost:81".to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        format!("127.0.0.2:{port}"),
        format!("[::1]:{port}"),
        format!("localhost.evil.example:{port}"),
    ] {
        let mut client = connect(address, "/prod", &host, &[]).await;
        let call = backend.next("CONNECT").await;
        let expected = format!("http://{address}/prod/@connections/{}", call.connection_id());
        assert_eq!(call.event()["headers"]["Host"], *host, "what the client sent is still there to be seen");
        client.send(&tidegate_testing::frame(0x81, br#"{"action":"tell"}"#)).await;
        let message = backend.next("MESSAGE").await;
        client.send(&tidegate_testing::frame(0x88, b"\x03\xe8")).await;
        let disconnect = backend.next("DISCONNECT").await;
        for call in [&call, &message, &disconnect] {
            let context = call.context();
            assert_eq!(context["callbackUrl"], *expected, "{host}");
            assert_eq!(call.header("x-tidegate-callback-url"), expected, "{host}");
            assert_eq!(context["domainName"], address.to_string(), "{host}");
        }
    }
}

#[tokio::test]
async fn names_of_the_gateway_begin_callback_urls_as_the_client_wrote_them() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let address = gateway.public();
    let port = address.port();
    let names = ["localhost", "LOCALHOST", "127.0.0.1", "chat.execute-api.localhost", "chat.Execute-API.localhost"];
    for host in names.map(|name| format!("{name}:{port}")) {
        let mut client = connect(address, "/prod", &host, &[]).await;
        let call = backend.next("CONNECT").await;
        let path = format!("/prod/@connections/{}", call.connection_id());
        assert_eq!(call.context()["callbackUrl"], format!("http://{host}{path}"));
        assert_eq!(call.context()["domainName"], *host);
        assert_eq!(http(address, "POST", &path, &[("Host", &host)], b"hi").await.status, 200, "{host}");
        assert_eq!(client.next_frame().await.unwrap().payload, b"hi");
    }

    let listed = r#"connectionsApi: NONE, allowedHosts: [ chat.example.com, "*.example.org:8443" ]"#;
    let gateway = Settings::aws_proxy(&backend).public(listed).start().await;
    for host in ["chat.example.com", "CHAT.example.com:99", "a.example.org:8443"] {
        connect(gateway.public(), "/prod", host, &[]).await;
        let call = backend.next("CONNECT").await;
        let expected = format!("http://{host}/prod/@connections/{}", call.connection_id());
        assert_eq!(call.context()["callbackUrl"], *expected);
        assert_eq!(call.context()["domainName"], host);
    }
}

#[tokio::test]
async fn a_domain_begins_callback_urls_at_the_ports_that_it_is_reached_at() {
    let backend = TestBackend::start().await;
    let domain = "domainNames: { chat.test: { apiMappings: [ { apiMappingKey: v1, apiId: chat, stage: prod } ] } }";
    let public = "connectionsApi: NONE, trustedProxies: [ 127.0.0.1 ]";
    let gateway = Settings::aws_proxy(&backend).public(public).section(domain).start().await;
    let address = gateway.public();
    let own = format!("chat.test:{}", address.port());
    let forwarded: &[(&str, &str)] = &[("X-Forwarded-Port", "9443")];
    for (host, headers, named) in [
        ("chat.test", [].as_slice(), true),
        ("chat.test:80", &[], true),
        ("chat.test:443", &[], true),
        (&own, &[], true),
        ("chat.test:9443", forwarded, true),
        ("chat.test:9443", &[], false),
        ("chat.test:22", &[], false),
    ] {
        connect(address, "/v1", host, headers).await;
        let call = backend.next("CONNECT").await;
        let base = if named { format!("http://{host}/v1") } else { format!("http://{address}/prod") };
        let expected = format!("{base}/@connections/{}", call.connection_id());
        assert_eq!(call.context()["callbackUrl"], *expected, "{host} {headers:?}");
    }
}

#[tokio::test]
async fn of_all_addresses_the_one_that_the_client_connected_to_begins_callback_urls() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let text = settings.text().replacen("public: { address: 127.0.0.1:0", "public: { address: 0.0.0.0:0", 1);
    let config = config::load(&text, &|_| None).expect("no problems");
    let gateway = Gateway::builder(config).start().await.expect("the gateway starts");
    let port = gateway.public_address().port();
    assert!(gateway.public_address().ip().is_unspecified());
    for local in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 7)] {
        let address = SocketAddr::from((local, port));
        let mut client = connect(address, "/prod", "evil.example", &[]).await;
        let call = backend.next("CONNECT").await;
        let path = format!("/prod/@connections/{}", call.connection_id());
        assert_eq!(call.context()["callbackUrl"], format!("http://{address}{path}"));
        assert_eq!(http(address, "POST", &path, &[], b"hi").await.status, 200);
        assert_eq!(client.next_frame().await.unwrap().payload, b"hi");
    }
}

#[tokio::test]
async fn the_address_of_a_plain_listener_is_called_by_http_though_its_proxy_speaks_tls() {
    let backend = TestBackend::start().await;
    let public = "connectionsApi: NONE, trustedProxies: [ 127.0.0.1 ]";
    let gateway = Settings::aws_proxy(&backend).public(public).start().await;
    let address = gateway.public();
    let by_tls: &[(&str, &str)] = &[("X-Forwarded-Proto", "https")];
    connect(address, "/prod", "chat.example.com", by_tls).await;
    let call = backend.next("CONNECT").await;
    let expected = format!("http://{address}/prod/@connections/{}", call.connection_id());
    assert_eq!(call.context()["callbackUrl"], *expected);
    assert_eq!(call.event()["headers"]["X-Forwarded-Proto"], "https");

    let public = format!("{public}, allowedHosts: [ chat.example.com ]");
    let gateway = Settings::aws_proxy(&backend).public(&public).start().await;
    connect(gateway.public(), "/prod", "chat.example.com", by_tls).await;
    let call = backend.next("CONNECT").await;
    let expected = format!("https://chat.example.com/prod/@connections/{}", call.connection_id());
    assert_eq!(call.context()["callbackUrl"], *expected);
}
