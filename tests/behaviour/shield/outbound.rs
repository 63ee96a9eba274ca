use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tidegate::app::Gateway;
use tidegate_http::http_client::{HttpClient, Lookup, Resolver};
use tidegate_testing::{Authority, LAST, Settings, TestBackend, TestClient, TestGateway, raw, root, run, run_with};

use crate::shield::handshake;

const OLD: &str = "whsec_b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xk";
const NEW: &str = "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3";

#[tokio::test]
async fn a_signed_call_is_verified_by_the_standards_own_library() {
    let backend = TestBackend::start().await.echoing();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("hook");
    std::fs::write(&secret, format!("{OLD}\n")).unwrap();
    let integration = format!("signing: {{ secrets: [ \"${{file:{}}}\", {NEW} ] }}", secret.display());
    let gateway = Settings::aws_proxy(&backend).integration(integration).start().await;
    let mut client = TestClient::enter(gateway.public()).await;
    client.echo("häh?").await;
    drop(client);
    let library = library().await;
    let script = "import json, sys\n\
        from standardwebhooks import Webhook, WebhookVerificationError\n\
        secret, headers, body = sys.argv[1], json.loads(sys.argv[2]), sys.stdin.buffer.read()\n\
        Webhook(secret).verify(body, headers)\n\
        for other in (body + b' ', b'x' + body):\n\
        \x20   try:\n\
        \x20       Webhook(secret).verify(other, headers)\n\
        \x20       sys.exit('a changed body was accepted')\n\
        \x20   except WebhookVerificationError:\n\
        \x20       pass\n";
    for event_type in ["CONNECT", "MESSAGE", "DISCONNECT"] {
        let call = backend.last(event_type).await;
        assert_eq!(call.header("webhook-id"), call.header("x-tidegate-request-id"));
        let all: BTreeMap<&str, &str> =
            call.headers.keys().map(|name| (name.as_str(), call.header(name.as_str()))).collect();
        let headers = serde_json::to_string(&all).unwrap();
        for secret in [OLD, NEW] {
            let environment = [("PYTHONPATH", library.as_str())];
            let (succeeded, output) =
                run_with("/usr/bin/python3", &["-c", script, secret, &headers], &environment, &call.body).await;
            assert!(succeeded, "{event_type}: {output}");
        }
        // The snippet that the examples show.
        let snippet = root().join("examples/python/verify_signature.py").display().to_string();
        let verified =
            async |headers: &str, body: &[u8]| run_with("/usr/bin/python3", &[&snippet, NEW, headers], &[], body).await;
        let (succeeded, output) = verified(&headers, &call.body).await;
        assert!(succeeded, "{event_type}: {output}");
        assert!(!verified(&headers, b"changed").await.0, "{event_type}");
        // What the gateway says of the event in headers, changed, added, taken away, or of another call.
        let changes: [fn(&mut BTreeMap<&str, &str>); 6] = [
            |headers| _ = headers.insert("x-tidegate-connection-id", "another"),
            |headers| _ = headers.insert("x-tidegate-user", "admin"),
            |headers| _ = headers.remove("x-tidegate-stage"),
            |headers| _ = headers.remove("x-tidegate-signature"),
            |headers| _ = headers.insert("x-tidegate-signature", headers["webhook-signature"]),
            |headers| _ = headers.insert("webhook-id", "another"),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = all.clone();
            change(&mut changed);
            let changed = serde_json::to_string(&changed).unwrap();
            assert!(!verified(&changed, &call.body).await.0, "{event_type}: change {index} was accepted");
        }
    }
    // The docs show the same lines.
    let docs = include_str!("../../../docs/production.md");
    let (_, block) = docs.split_once("```python\n").expect("a block of Python");
    let (block, _) = block.split_once("```").expect("its end");
    assert!(include_str!("../../../examples/python/verify_signature.py").contains(block), "{block}");
}

/// Returns the folder of the library; it is installed for the tests alone, the first time they run.
async fn library() -> String {
    let folder = root().join("target/shield-python");
    if !folder.join("standardwebhooks").exists() {
        let target = folder.display().to_string();
        let arguments =
            ["-m", "pip", "install", "--quiet", "--no-deps", "--target", &target, "standardwebhooks==1.1.0"];
        let (mut succeeded, mut output) = run("/usr/bin/python3", &arguments, &[]).await;
        if !succeeded {
            (succeeded, output) = run("python3", &arguments, &[]).await;
        }
        assert!(succeeded, "standardwebhooks could not be installed from PyPI: {output}");
    }
    folder.display().to_string()
}

#[tokio::test]
async fn a_secret_that_cannot_sign_is_a_problem_and_not_shown() {
    let backend = TestBackend::start().await.echoing();
    let integration = "signing: { secrets: [ hunter2hunter2 ] }".to_owned();
    let problems = Settings::aws_proxy(&backend).integration(integration).problems();
    assert!(problems.contains("integrations.backend.signing: secret 1 cannot be used"), "{problems}");
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[tokio::test]
async fn backends_with_an_authority_of_their_own_and_client_certificates() {
    let (authority, other) = (Authority::new("internal"), Authority::new("other"));
    let server = authority.issue(&["backend.internal"]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), Arc::clone(&provider))
        .build()
        .unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(server.chain(), server.private_key())
        .unwrap();
    let backend = TestBackend::start_tls(tls).await.echoing();
    authority.write_pair("gateway", &authority.issue(&["gateway.internal"]));
    other.write_pair("gateway", &other.issue(&["gateway.internal"]));
    let path = |authority: &Authority, name: &str| authority.path(name).display().to_string();
    let settings = |ca: &str, identity: Option<&Authority>, name: &str| {
        let identity = identity.map(|authority| {
            let (certificate, key) = (path(authority, "gateway.pem"), path(authority, "gateway.key"));
            format!("clientCertificate: {certificate}, clientKey: {key}, ")
        });
        let identity = identity.unwrap_or_default();
        Settings::aws_proxy(&backend)
            .integration(format!("tlsConfig: {{ caFile: {ca}, {identity}serverNameToVerify: {name} }}"))
            .uri(format!("https://{}/events", backend.address()))
    };
    let ca = path(&authority, "ca.pem");
    let gateway = settings(&ca, Some(&authority), "backend.internal").start().await;
    TestClient::enter(gateway.public()).await.echo("hello").await;
    for (what, settings) in [
        ("another name", settings(&ca, Some(&authority), "else.internal")),
        ("another authority", settings(&path(&other, "ca.pem"), Some(&authority), "backend.internal")),
        ("a certificate of another authority", settings(&ca, Some(&other), "backend.internal")),
        ("no certificate", settings(&ca, None, "backend.internal")),
    ] {
        let gateway = settings.start().await;
        let answer = raw(gateway.public(), &handshake("a", "")).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{what}: {answer}");
    }
    let half = Settings::aws_proxy(&backend).integration(format!("tlsConfig: {{ clientCertificate: {ca} }}"));
    assert!(half.problems().contains("`clientCertificate` and `clientKey` must be set together"));
    let plain = settings(&ca, None, "backend.internal").uri(format!("http://{}/", backend.address()));
    assert!(plain.problems().contains("`tlsConfig` is allowed only for `https://` URLs"));
}

/// A certificate of its own for `name`, and its key.
fn self_signed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), key)
}

/// A server that shows a certificate and signs with a key, whether or not they belong together.
fn server(certificate: &Certificate, key: &KeyPair) -> rustls::ServerConfig {
    let signing_key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let signing_key = rustls::crypto::ring::sign::any_supported_type(&signing_key).unwrap();
    let shown = CertifiedKey::new(vec![certificate.der().clone()], signing_key);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.unwrap().with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
}

#[tokio::test]
async fn a_certificate_that_stands_in_the_file_of_authorities_itself_is_trusted_if_all_else_is_right() {
    const NAME: &str = "backend.internal";
    let folder = tempfile::tempdir().unwrap();
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let with = |change: fn(&mut CertificateParams)| {
        self_signed(NAME, |params| {
            authority(params);
            change(params);
        })
    };
    let trusted = with(|_| {});
    let plain = self_signed(NAME, |_| {});
    let issuer = Authority::new("unknown");
    let issued = issuer.issue(&[NAME]);
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    let check =
        async |what: &str, (shown, key): (&Certificate, &KeyPair), listed: &str, name: &str, is_trusted: bool| {
            let backend = TestBackend::start_tls(server(shown, key)).await.echoing();
            file("ca.pem", listed);
            let settings = Settings::aws_proxy(&backend)
                .integration(format!(
                    "tlsConfig: {{ caFile: {}, serverNameToVerify: {name} }}",
                    folder.path().join("ca.pem").display()
                ))
                .uri(format!("https://{}/events", backend.address()));
            let gateway = settings.start().await;
            let answer = raw(gateway.public(), &handshake("a", "")).await;
            let status = if is_trusted { "HTTP/1.1 101" } else { "HTTP/1.1 502" };
            assert!(answer.starts_with(status), "{what}: {answer}");
        };
    let pem = |(certificate, _): &(Certificate, KeyPair)| certificate.pem();
    let shown = (&trusted.0, &trusted.1);
    check("the certificate itself", shown, &pem(&trusted), NAME, true).await;
    check("among others", shown, &(issuer.certificate.clone() + &pem(&trusted)), NAME, true).await;
    check("no authority", (&plain.0, &plain.1), &pem(&plain), NAME, true).await;
    check("another name", shown, &pem(&trusted), "else.internal", false).await;
    check("not listed", shown, &issuer.certificate, NAME, false).await;
    // Made alike, with another key.
    let other = with(|_| {});
    check("listed is another with this name", shown, &pem(&other), NAME, false).await;
    check("another key signs", (&trusted.0, &other.1), &pem(&trusted), NAME, false).await;
    let expired = with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    check("expired", (&expired.0, &expired.1), &pem(&expired), NAME, false).await;
    let early = with(|params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    check("not valid yet", (&early.0, &early.1), &pem(&early), NAME, false).await;
    let client = with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    check("for clients alone", (&client.0, &client.1), &pem(&client), NAME, false).await;

    // One of an authority that is not listed, listed itself.
    let chain = issued.chain();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, issued.private_key())
        .unwrap();
    let backend = TestBackend::start_tls(tls).await.echoing();
    file("leaf.pem", &issued.certificate);
    let leaf = folder.path().join("leaf.pem").display().to_string();
    let settings = Settings::aws_proxy(&backend)
        .integration(format!("tlsConfig: {{ caFile: {leaf}, serverNameToVerify: {NAME} }}"))
        .uri(format!("https://{}/events", backend.address()));
    TestClient::enter(settings.start().await.public()).await.echo("hello").await;
}

#[tokio::test]
async fn a_file_of_authorities_that_is_empty_at_that_moment_is_a_mistake() {
    let backend = TestBackend::start().await.echoing();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, "").unwrap();
    let settings = Settings::aws_proxy(&backend)
        .integration(format!("tlsConfig: {{ caFile: {} }}", ca.display()))
        .uri(format!("https://{}/events", backend.address()));
    assert!(settings.problems().contains("has no certificate"), "{}", settings.problems());
}

/// Gives one answer after the other, the last again and again.
struct Script {
    answers: Mutex<Vec<SocketAddr>>,
    asked: AtomicUsize,
}

impl Resolver for Script {
    fn resolve<'a>(&'a self, _host: &'a str, _port: u16) -> Lookup<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let address = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
        Box::pin(async move { io::Result::Ok(vec![address]) })
    }
}

#[tokio::test]
async fn names_that_lead_to_private_or_metadata_addresses_are_not_called_also_not_the_second_time() {
    let backend = TestBackend::start().await.echoing();
    let start = async |host: &str, allow: &str, answers: &[SocketAddr]| {
        let script = Arc::new(Script { answers: Mutex::new(answers.to_vec()), asked: AtomicUsize::new(0) });
        let settings = Settings::aws_proxy(&backend)
            .uri(format!("http://{host}:{}/events", backend.address().port()))
            .section(allow);
        let config = tidegate::config::load(&settings.text(), &|_| None).unwrap();
        let resolver = Arc::clone(&script);
        let gateway =
            Gateway::builder(config).http_client(move |tasks| HttpClient::with_resolver(tasks, resolver)).start().await;
        let gateway = TestGateway { gateway: gateway.unwrap() };
        (gateway, script)
    };
    let refused = async |gateway: &TestGateway| {
        let answer = raw(gateway.public(), &handshake("a", "")).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    };
    let metadata: SocketAddr = "169.254.169.254:80".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:169.254.169.254]:80".parse().unwrap();
    for (host, allow) in [("api.example.com", ""), ("backend", ""), ("backend", "egress: { allow: [ 0.0.0.0/0 ] }")] {
        for address in [metadata, mapped] {
            refused(&start(host, allow, &[address]).await.0).await;
        }
    }
    refused(&start("api.example.com", "", &[backend.address()]).await.0).await;
    refused(&start("backend", "egress: { allow: [ 10.0.0.0/8 ] }", &[backend.address()]).await.0).await;
    for (host, allow) in [("backend", ""), ("api.example.com", "egress: { allow: [ 127.0.0.1 ] }")] {
        let (gateway, _) = start(host, allow, &[backend.address()]).await;
        TestClient::enter(gateway.public()).await.echo("hello").await;
    }
    // The same name leads elsewhere when the next connection is opened.
    let (gateway, script) = start("backend", "", &[backend.address(), metadata]).await;
    let mut client = TestClient::enter(gateway.public()).await;
    client.echo("on the first connection").await;
    assert_eq!(script.asked.load(Ordering::SeqCst), 1);
    client.echo(LAST).await;
    client.send("on the second").await;
    assert!(client.next_text().await.contains("Internal server error"));
    assert_eq!(script.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stage_variable_cannot_change_more_than_a_host() {
    let backend = TestBackend::start().await.echoing();
    let check = |uri: &str, value: &str, expected: &str| {
        let settings = Settings::aws_proxy(&backend).uri(uri);
        let text = settings.stage(&format!("stageVariables: {{ v: \"{value}\" }}")).text();
        let problems = tidegate::config::load(&text, &|_| None).err().unwrap_or_default();
        let told: String = problems.iter().map(|problem| problem.message.clone()).collect();
        assert_eq!(told.contains("is in the host of the URL"), !expected.is_empty(), "{uri} {value}: {told}");
    };
    check("http://${stageVariables.v}.example.com/", "prod", "");
    check("http://${stageVariables.v}/", "backend:9000", "");
    check("http://a.test/${stageVariables.v}", "/evil.test/?x#y", "");
    check("http://${stageVariables.v}.example.com/", "evil.test/", "refused");
    check("http://${stageVariables.v}.example.com/", "evil.test?", "refused");
    check("http://backend${stageVariables.v}", "#.evil.test", "refused");
}
