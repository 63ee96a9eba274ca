use tidegate_testing::{
    Authority, Issuer, Key, TestBackend, TestClient, TestGateway, connect_tls, raw_on, root, run, tidegate_path,
};

/// A post by the SDK that backends use, with the gateway's name leading to this machine.
const POST: &str = "import boto3, socket, sys\n\
    lookup = socket.getaddrinfo\n\
    socket.getaddrinfo = lambda host, *more, **options: lookup('127.0.0.1', *more, **options)\n\
    client = boto3.client('apigatewaymanagementapi', endpoint_url=sys.argv[1], region_name='us-east-1',\n\
    \x20   aws_access_key_id='AKIDCHATBACKEND', aws_secret_access_key=sys.argv[3])\n\
    client.post_to_connection(ConnectionId=sys.argv[2], Data=b'hello from the backend')\n";

const CALLBACK_SECRET: &str = "Y2FsbGJhY2sgY2FsbGJhY2sgY2FsbGJhY2s=";

/// The files and variables that `config/production.yaml` needs, made for the test.
#[tokio::test]
async fn the_production_example_is_accepted_and_serves() {
    let (authority, partners) = (Authority::new("test"), Authority::new("partners"));
    let backend = TestBackend::start().await.echoing();
    let key = Key::new("one");
    let issuer = Issuer::start(&[&key]).await;
    authority.write_pair("chat", &authority.issue(&["chat.example.com"]));
    authority.write("partners.pem", &partners.certificate);
    authority.write("hook", "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==\n");
    authority.write("callback", &format!("{CALLBACK_SECRET}\n"));
    let (backend_url, issuer_url) = (backend.url(), issuer.url());
    let folder = authority.folder.path().display().to_string();
    let environment = |name: &str| match name {
        "TIDEGATE_TLS" | "TIDEGATE_SECRETS" => Some(folder.clone()),
        "TIDEGATE_PUBLIC" | "TIDEGATE_INTERNAL" => Some("127.0.0.1:0".to_owned()),
        "TIDEGATE_BACKEND" => Some(backend_url.clone()),
        "TIDEGATE_ISSUER" => Some(issuer_url.clone()),
        "TIDEGATE_BACKEND_NETWORK" => Some("127.0.0.0/8".to_owned()),
        _ => None,
    };
    let text = include_str!("../../../config/production.yaml");
    let loaded =
        tidegate::config::load_with_warnings(text, &environment).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(loaded.warnings, []);
    let gateway = TestGateway::start_with(loaded.config).await;
    let address = gateway.public();
    let url = format!("ws://chat.example.com:{}/", address.port());
    let token = format!("chat.v1, bearer.{}", key.sign(&issuer.claims(600)));
    let connect = async |origin: &str, protocol: &str| {
        let stream = connect_tls(address, authority.client(None), "chat.example.com").await.unwrap();
        TestClient::on(stream, &url, &[("origin", origin), ("sec-websocket-protocol", protocol)]).await.ok()
    };
    assert!(connect("https://evil.test", &token).await.is_none(), "a page that is not listed");
    assert!(connect("https://example.com", "chat.v1, bearer.e30.e30.e30").await.is_none(), "a token that is none");
    let mut client = connect("https://example.com", &token).await.expect("a connection");
    client.echo("{\"action\": \"hello\"}").await;
    let call = backend.last("MESSAGE").await;
    assert!(call.header("webhook-signature").starts_with("v1,"));
    assert_eq!(call.context()["authorizer"]["jwt"]["claims"]["sub"], "ann");
    assert_eq!(backend.calls("CONNECT").len(), 1);

    // The backend's own calls: signed, or not at all.
    let context = call.context();
    let callback_url = context["callbackUrl"].as_str().unwrap();
    assert!(callback_url.starts_with("https://chat.example.com/@connections/"), "{callback_url}");
    let id = context["connectionId"].as_str().unwrap();
    let (ca, endpoint) = (authority.path("ca.pem").display().to_string(), format!("https{}", &url[2..]));
    let bundle = [("AWS_CA_BUNDLE", ca.as_str())];
    let (succeeded, output) = run("/usr/bin/python3", &["-c", POST, &endpoint, id, CALLBACK_SECRET], &bundle).await;
    assert!(succeeded, "{output}");
    assert_eq!(client.next_text().await, "hello from the backend");
    let (succeeded, output) = run("/usr/bin/python3", &["-c", POST, &endpoint, id, "another"], &bundle).await;
    assert!(!succeeded && output.contains("InvalidSignatureException"), "{output}");
    let mut stream = connect_tls(address, authority.client(None), "chat.example.com").await.unwrap();
    let unsigned = format!("GET /@connections/{id} HTTP/1.1\r\nHost: chat.example.com\r\n\r\n");
    let answer = raw_on(&mut stream, unsigned.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");

    let path = root().join("config/production.yaml").display().to_string();
    let variables: Vec<(&str, String)> =
        ["TIDEGATE_TLS", "TIDEGATE_SECRETS", "TIDEGATE_BACKEND", "TIDEGATE_ISSUER", "TIDEGATE_BACKEND_NETWORK"]
            .into_iter()
            .map(|name| (name, environment(name).unwrap()))
            .collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (succeeded, output) = run(tidegate_path(), &["check", "--config", &path], &variables).await;
    assert!(succeeded, "{output}");
    assert!(!output.contains("whsec_") && !output.contains(CALLBACK_SECRET), "{output}");
}
