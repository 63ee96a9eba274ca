use rcgen::{CertificateParams, KeyPair};
use tidegate_testing::{Authority, Settings, TestBackend, Tidegate, run, tidegate_path};

#[tokio::test]
async fn each_way_a_certificate_can_be_wrong_has_its_message() {
    let (authority, other) = (Authority::new("test"), Authority::new("other"));
    let backend = TestBackend::start().await.echoing();
    let good = authority.issue(&["chat.test"]);
    let check = |certificate: &str, key: &str, expected: &str| {
        let certificate = authority.write("it.pem", certificate);
        let key = authority.write("it.key", key);
        let (certificate, key) = (certificate.display(), key.display());
        let settings = Settings::aws_proxy(&backend)
            .public(format!("tls: {{ certificates: [ {{ certificate: {certificate}, privateKey: {key} }} ] }}"))
            .section("domainNames: { chat.test: { apiMappings: [ { apiId: chat, stage: prod } ] } }");
        let problems = settings.problems();
        match expected {
            "" => assert_eq!(problems, ""),
            expected => assert!(problems.contains(expected), "{problems} instead of {expected}"),
        }
        // Not even a part of a key is shown.
        assert!(!problems.contains(&good.key[40..80]), "{problems}");
    };
    let at = |year: i32| rcgen::date_time_ymd(year, 1, 1);
    let expired = authority.issue_with(&["chat.test"], |params| params.not_after = at(2001));
    let early = authority.issue_with(&["chat.test"], |params| params.not_before = at(2090));
    let elsewhere = authority.issue(&["elsewhere.test"]);
    let nameless = authority.issue(&[]);
    let intermediate = authority.issue_with(&["chat.test"], |params| {
        // Where the issuer's certificate can be fetched: 1.3.6.1.5.5.7.1.1.
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
        params.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&oid, vec![0x30, 0]));
    });
    check(&good.certificate, &good.key, "");
    check(&[&*good.certificate, &authority.certificate].concat(), &good.key, "");
    check(&expired.certificate, &expired.key, "expired on");
    check(&early.certificate, &early.key, "is not valid before");
    check(&good.certificate, &elsewhere.key, "is not the one of the certificate");
    check(&[&*good.certificate, &other.certificate].concat(), &good.key, "the chain in");
    check(&intermediate.certificate, &intermediate.key, "is incomplete: its last certificate was issued by `CN=test`");
    check(&elsewhere.certificate, &elsewhere.key, "domainNames[\"chat.test\"]: no certificate of");
    check(&nameless.certificate, &nameless.key, "has no host name");
    check("", &good.key, "has no certificate");
    check(&good.key, &good.key, "has no certificate");
    check(&good.certificate, &good.certificate, "has no private key");
    check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key, "cannot be read as X.509");
    check("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", &good.key, "is not PEM");
    check(
        &good.certificate,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "is encrypted",
    );
    let missing = Settings::aws_proxy(&backend)
        .public("tls: { certificates: [ { certificate: /not/there.pem, privateKey: /not/there.key } ] }");
    assert!(missing.problems().contains("listeners.public.tls: could not read `/not/there.pem`"));
}

#[tokio::test]
async fn keys_of_every_form_are_read() {
    let authority = Authority::new("test");
    let backend = TestBackend::start().await.echoing();
    let path = |name: &str| authority.path(name).display().to_string();
    let key = path("form.key");
    let forms: [(&str, &[&str]); 3] = [
        ("PKCS#8", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &key]),
        ("PKCS#1", &["genrsa", "-traditional", "-out", &key, "2048"]),
        ("SEC1", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]),
    ];
    for (form, arguments) in forms {
        let (succeeded, output) = run("openssl", arguments, &[]).await;
        assert!(succeeded, "{form}: {output}");
        let certificate = path("form.pem");
        let arguments = [
            "req",
            "-x509",
            "-key",
            &key,
            "-out",
            &certificate,
            "-days",
            "30",
            "-subj",
            "/CN=chat.test",
            "-addext",
            "subjectAltName=DNS:chat.test",
        ];
        let (succeeded, output) = run("openssl", &arguments, &[]).await;
        assert!(succeeded, "{form}: {output}");
        let settings = Settings::aws_proxy(&backend)
            .public(format!("tls: {{ certificates: [ {{ certificate: {certificate}, privateKey: {key} }} ] }}"));
        assert_eq!(settings.problems(), "", "{form}");
    }
    // A certificate that signs itself needs no chain.
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["chat.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pair = tidegate_testing::Issued { certificate: certificate.pem(), key: key.serialize_pem() };
    let pair = authority.write_pair("self", &pair);
    let settings = Settings::aws_proxy(&backend).public(format!("tls: {{ certificates: [ {pair} ] }}"));
    assert_eq!(settings.problems(), "");
}

/// The certificate of an authority that ended long ago.
fn expired_authority(name: &str) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

#[tokio::test]
async fn an_authority_that_has_expired_is_warned_of_when_it_is_read_and_when_it_changes() {
    let (authority, partners) = (Authority::new("test"), Authority::new("partners"));
    let backend = TestBackend::start().await.echoing();
    let pair = authority.write_pair("first", &authority.issue(&["chat.test"]));
    let ca = authority.write("partners.pem", &partners.certificate);
    let settings = Settings::aws_proxy(&backend)
        .public(format!("tls: {{ certificates: [ {pair} ], clientCa: {} }}", ca.display()))
        .integration(format!(
            "tlsConfig: {{ caFile: {} }}",
            authority.write("backend.pem", &authority.certificate).display()
        ))
        .uri("https://backend.test/");
    let config = authority.write("tidegate.yaml", &settings.text());
    let check = async || {
        let arguments = ["check", "--config", config.to_str().unwrap()];
        let (succeeded, output) = run(tidegate_path(), &arguments, &[]).await;
        assert!(succeeded, "{output}");
        output
    };
    let output = check().await;
    assert!(!output.contains("expire"), "{output}");

    let mut gateway = Tidegate::serve(&config, &[]).await;
    let told = "and certificates that it issued are still accepted";
    authority.write("partners.pem", &[partners.certificate.as_str(), &expired_authority("old partner")].concat());
    let line = gateway.process.line_with(told).await;
    assert!(line.contains("CN=old partner") && line.contains("partners.pem"), "{line}");
    authority.write("backend.pem", &expired_authority("old backend"));
    let output = check().await;
    let warnings: Vec<&str> =
        output.lines().filter(|line| line.starts_with("warning: ") && line.contains(told)).collect();
    assert_eq!(warnings.len(), 2, "{output}");
    let has = |place: &str, name: &str| warnings.iter().any(|line| line.contains(place) && line.contains(name));
    assert!(has("listeners.public.tls", "CN=old partner"), "{output}");
    assert!(has("apis.chat.integrations.backend.tlsConfig.caFile", "CN=old backend"), "{output}");
    drop(gateway);
    // A start says it as well.
    let mut gateway = Tidegate::launch(&config, &[]);
    let lines = gateway.lines_until("\"ready\"").await;
    assert_eq!(lines.iter().filter(|line| line.contains("CN=old partner")).count(), 1, "{lines:#?}");
}
