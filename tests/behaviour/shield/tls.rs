use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tidegate_testing::{
    Authority, Issued, Settings, TestBackend, TestClient, TestGateway, Tidegate, connect_from, connect_tls, raw_on,
    run, run_with, within,
};
use tokio::io::AsyncReadExt as _;

async fn start(authority: &Authority, more: &str) -> (TestGateway, TestBackend) {
    let backend = TestBackend::start().await.echoing();
    let first = authority.write_pair("first", &authority.issue(&["chat.test", "127.0.0.1"]));
    let second = authority.write_pair("second", &authority.issue(&["*.other.test"]));
    let settings =
        Settings::aws_proxy(&backend).public(format!("tls: {{ certificates: [ {first}, {second} ], {more} }}"));
    (settings.start().await, backend)
}

#[tokio::test]
async fn clients_chat_over_tls_and_their_backend_knows_it() {
    let authority = Authority::new("test");
    let (gateway, backend) = start(&authority, "").await;
    let address = gateway.public();
    let stream = connect_tls(address, authority.client(None), "chat.test").await.unwrap();
    let url = format!("ws://chat.test:{}/prod", address.port());
    let mut client = TestClient::on(stream, &url, &[("x-forwarded-proto", "http")]).await.unwrap();
    client.echo("hello").await;
    client.echo(&"x".repeat(100_000)).await;
    let connect = backend.last("CONNECT").await;
    let event: serde_json::Value = serde_json::from_slice(&connect.body).unwrap();
    assert_eq!(event["headers"]["X-Forwarded-Proto"], "https");
    assert_eq!(event["headers"]["X-Forwarded-Port"], address.port().to_string());
    let callback = connect.context()["callbackUrl"].as_str().unwrap().to_owned();
    // Nothing says that the name is the gateway's: its own address is called, as it speaks.
    assert!(callback.starts_with(&format!("https://{address}/prod/@connections/")), "{callback}");
    assert!(connect.context()["identity"].get("clientCert").is_none());
}

#[tokio::test]
async fn certificates_are_chosen_by_name_versions_and_alpn_are_right_and_sessions_resume() {
    let authority = Authority::new("test");
    let (gateway, _backend) = start(&authority, "").await;
    let address = gateway.public();
    for version in [&TLS12, &TLS13] {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        for name in ["chat.test", "a.other.test", "127.0.0.1"] {
            let mut stream = connect_tls(address, config.clone(), name).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
            // Tickets of TLS 1.3 come behind the handshake, with the first answer.
            raw_on(&mut stream, b"GET /prod HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let resumed = connect_tls(address, config.clone(), name).await.unwrap();
            assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{name} {version:?}");
        }
        assert!(connect_tls(address, config.clone(), "unknown.test").await.is_err());
        config.alpn_protocols = vec![b"h2".to_vec()];
        assert!(connect_tls(address, config, "chat.test").await.is_err());
    }
}

#[tokio::test]
async fn openssl_trusts_the_chain() {
    let authority = Authority::new("test");
    let (gateway, _backend) = start(&authority, "").await;
    let (ca, address) = (authority.path("ca.pem").display().to_string(), gateway.public().to_string());
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [
            "s_client",
            "-connect",
            &address,
            "-servername",
            "chat.test",
            "-CAfile",
            &ca,
            "-verify_return_error",
            version,
        ];
        let (succeeded, output) =
            run_with("openssl", &arguments, &[], b"GET /prod HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(succeeded && output.contains("Verify return code: 0 (ok)"), "{output}");
    }
    let arguments = ["s_client", "-connect", &address, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let (succeeded, output) = run("openssl", &arguments, &[]).await;
    assert!(!succeeded, "{output}");
}

#[tokio::test]
async fn boto3_posts_over_tls_with_a_ca_bundle() {
    let authority = Authority::new("test");
    let (gateway, backend) = start(&authority, "").await;
    let address = gateway.public();
    let stream = connect_tls(address, authority.client(None), "127.0.0.1").await.unwrap();
    let mut client = TestClient::on(stream, &format!("ws://{address}/prod"), &[]).await.unwrap();
    let id = backend.last("CONNECT").await.context()["connectionId"].as_str().unwrap().to_owned();
    let script = "import boto3, sys\n\
        client = boto3.client('apigatewaymanagementapi', endpoint_url=sys.argv[1], region_name='us-east-1',\n\
        \x20   aws_access_key_id='a', aws_secret_access_key='b')\n\
        client.post_to_connection(ConnectionId=sys.argv[2], Data=b'hello')\n";
    let ca = authority.path("ca.pem").display().to_string();
    let endpoint = format!("https://{address}/prod");
    let (succeeded, output) = run("/usr/bin/python3", &["-c", script, &endpoint, &id], &[("AWS_CA_BUNDLE", &ca)]).await;
    assert!(succeeded, "{output}");
    assert_eq!(client.next_text().await, "hello");
}

#[tokio::test]
async fn certificates_change_under_open_connections_and_a_bad_one_changes_nothing_but_the_log() {
    let authority = Authority::new("test");
    let backend = TestBackend::start().await.echoing();
    let pair = authority.write_pair("first", &authority.issue(&["chat.test"]));
    let public = format!("tls: {{ certificates: [ {pair} ] }}");
    let config = authority.write("tidegate.yaml", &Settings::aws_proxy(&backend).public(public).text());
    let mut gateway = Tidegate::serve(&config, &[]).await;
    let address = gateway.public;
    let url = format!("ws://{address}/prod");
    let mut clients = Vec::new();
    for _ in 0..200 {
        let stream = connect_tls(address, authority.client(None), "chat.test").await.unwrap();
        clients.push(TestClient::on(stream, &url, &[]).await.unwrap());
    }
    let served = async || {
        let stream = connect_tls(address, authority.client(None), "chat.test").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let old = served().await;
    authority.write("first.pem", "no certificate");
    let line = gateway.process.line_with("the old ones stay in force").await;
    assert!(line.contains("\"ERROR\"") && line.contains("has no certificate"), "{line}");
    assert_eq!(served().await, old);
    let new = authority.issue(&["chat.test"]);
    authority.write_pair("first", &new);
    gateway.process.line_with("TLS certificates were reloaded").await;
    assert_eq!(served().await, new.chain()[0]);
    for client in &mut clients {
        client.echo("still here").await;
    }
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_shown_to_the_backend() {
    let (authority, partners, strangers) = (Authority::new("test"), Authority::new("partners"), Authority::new("else"));
    // As `openssl req -x509` makes them: an authority, though of nobody else.
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let of_its_own = Issued { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    let ca = partners.write("clients.pem", &(partners.certificate.clone() + &of_its_own.certificate));
    let ca = ca.display().to_string();
    let partner = partners.issue(&["partner.test"]);
    let stranger = strangers.issue(&["partner.test"]);
    for (mode, anonymous_may) in [("OPTIONAL", true), ("REQUIRED", false)] {
        let (gateway, backend) = start(&authority, &format!("clientCa: {ca}, clientAuth: {mode}")).await;
        let address = gateway.public();
        let connect = async |identity: Option<&Issued>| {
            let stream = connect_tls(address, authority.client(identity), "chat.test").await.ok()?;
            // With TLS 1.3 a client hears of its refusal only when it reads.
            TestClient::on(stream, &format!("ws://{address}/prod"), &[]).await.ok()
        };
        assert!(connect(Some(&stranger)).await.is_none(), "{mode}");
        assert_eq!(connect(None).await.is_some(), anonymous_may, "{mode}");
        assert!(connect(Some(&of_its_own)).await.is_some(), "{mode}");
        let mut client = connect(Some(&partner)).await.unwrap();
        client.echo("hello").await;
        for event_type in ["CONNECT", "MESSAGE"] {
            let cert = backend.last(event_type).await.context()["identity"]["clientCert"].take();
            assert_eq!(cert["subjectDN"], "CN=a partner,O=Acme\\, Inc.", "{cert}");
            assert_eq!(cert["issuerDN"], "CN=partners");
            assert!(cert["clientCertPem"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"));
            assert!(cert["serialNumber"].as_str().unwrap().contains(':'));
            assert!(cert["validity"]["notAfter"].as_str().unwrap().ends_with(" GMT"));
        }
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_its_handshake_is_cut_off() {
    let authority = Authority::new("test");
    let backend = TestBackend::start().await.echoing();
    let pair = authority.write_pair("first", &authority.issue(&["chat.test"]));
    let settings = Settings::aws_proxy(&backend)
        .public(format!("tls: {{ certificates: [ {pair} ] }}"))
        .section("limits: { handshakeTimeoutSeconds: 1 }");
    let gateway = settings.start().await;
    let mut silent = connect_from("127.0.0.1", gateway.public()).await.unwrap();
    assert_eq!(within("the end", silent.read(&mut [0; 10])).await.unwrap_or(0), 0);
}
