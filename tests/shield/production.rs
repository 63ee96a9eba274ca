use tidegate::app::Gateway;

use crate::support::{Authority, Backend, Client, run, tls_stream};

/// What `config/production.yaml` wants from its machine, made for the test.
#[tokio::test]
async fn the_production_example_is_accepted_and_serves() {
    let (authority, partners) = (Authority::new("test"), Authority::new("partners"));
    let backend = Backend::start().await;
    authority.write_pair("chat", &authority.issue(&["chat.example.com"]));
    authority.write("partners.pem", &partners.certificate);
    authority.write("hook", "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==\n");
    let backend_url = format!("http://{}", backend.address);
    let folder = authority.folder.path().display().to_string();
    let environment = |name: &str| match name {
        "TIDEGATE_TLS" | "TIDEGATE_SECRETS" => Some(folder.clone()),
        "TIDEGATE_PUBLIC" | "TIDEGATE_INTERNAL" => Some("127.0.0.1:0".to_owned()),
        "TIDEGATE_BACKEND" => Some(backend_url.clone()),
        "TIDEGATE_BACKEND_NETWORK" => Some("127.0.0.0/8".to_owned()),
        _ => None,
    };
    let text = include_str!("../../config/production.yaml");
    let loaded =
        tidegate::config::load_with_warnings(text, &environment).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(loaded.warnings, []);
    let gateway = Gateway::start(loaded.config).await.unwrap();
    let address = gateway.public_address();
    let url = format!("ws://chat.example.com:{}/", address.port());
    let stream = tls_stream(address, authority.client(None), "chat.example.com").await.unwrap();
    let mut client = Client::on(stream, &url, &[("origin", "https://example.com")]).await.unwrap();
    client.echo("{\"action\": \"hello\"}").await;
    let call = backend.last("MESSAGE").await;
    assert!(call.header("webhook-signature").starts_with("v1,"));
    let stream = tls_stream(address, authority.client(None), "chat.example.com").await.unwrap();
    assert!(Client::on(stream, &url, &[("origin", "https://evil.test")]).await.is_err());

    let path = crate::support::root().join("config/production.yaml").display().to_string();
    let variables: Vec<(&str, String)> =
        ["TIDEGATE_TLS", "TIDEGATE_SECRETS", "TIDEGATE_BACKEND", "TIDEGATE_BACKEND_NETWORK"]
            .into_iter()
            .map(|name| (name, environment(name).unwrap()))
            .collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (succeeded, output) = run(env!("CARGO_BIN_EXE_tidegate"), &["check", "--config", &path], &variables, b"").await;
    assert!(succeeded, "{output}");
    assert!(!output.contains("whsec_"), "{output}");
}
