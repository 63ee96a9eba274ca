//! `rediss://`: the certificate is checked against the system's roots, which `SSL_CERT_FILE` replaces.

use tidegate_connections::redis_client::{RedisConnection, RedisSettings, RedisUrl, RedisUrls};
use tidegate_testing::{RedisServer, free_port, tidegate};

use crate::registry::{API, SOON};

#[tokio::test]
async fn redis_is_reached_over_tls_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(path("cert.pem"), certified.cert.pem()).expect("written");
    std::fs::write(path("key.pem"), certified.signing_key.serialize_pem()).expect("written");
    let port = free_port();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let _server = RedisServer::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
        "--user",
        "gateway",
        "on",
        ">hunter2",
        "~*",
        "+@all",
    ])
    .await;
    let file = path("tidegate.yaml");
    let text = format!(
        "registry: {{ type: redis, url: 'rediss://localhost:{port}', username: gateway, password: hunter2 }}\n\
         cluster: {{ secret: a secret of sixteen }}\n{API}"
    );
    std::fs::write(&file, text).expect("written");
    let nodes = |trusted: bool| {
        let mut command = tidegate(&["nodes", "--json", "--config", &file]);
        if trusted {
            command.env("SSL_CERT_FILE", &certificate);
        }
        async move { command.output().await.expect("it runs") }
    };
    let trusted = nodes(true).await;
    assert_eq!(String::from_utf8_lossy(&trusted.stdout), "{\"nodes\":[]}\n", "{trusted:?}");
    let untrusted = nodes(false).await;
    assert_eq!(untrusted.status.code(), Some(1), "{untrusted:?}");
    assert!(!String::from_utf8_lossy(&untrusted.stderr).contains("hunter2"));

    // Within a process whose roots are the system's, too.
    let url = RedisUrl::from(format!("rediss://gateway:hunter2@localhost:{port}"));
    let settings = RedisSettings { urls: RedisUrls::One(url), username: None, password: None };
    let refused = RedisConnection::open(&settings, SOON).await;
    let Err(error) = refused else { panic!("it is not trusted") };
    assert!(!format!("{error:?} {error}").contains("hunter2"));
}
