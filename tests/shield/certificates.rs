use rcgen::{CertificateParams, KeyPair};

use crate::support::{Authority, Backend, Settings, run};

#[tokio::test]
async fn each_way_a_certificate_can_be_wrong_has_its_message() {
    let (authority, other) = (Authority::new("test"), Authority::new("other"));
    let backend = Backend::start().await;
    let good = authority.issue(&["chat.test"]);
    let check = |certificate: &str, key: &str, expected: &str| {
        let certificate = authority.write("it.pem", certificate);
        let key = authority.write("it.key", key);
        let (certificate, key) = (certificate.display(), key.display());
        let settings = Settings {
            public: format!("tls: {{ certificates: [ {{ certificate: {certificate}, privateKey: {key} }} ] }}"),
            top: "domainNames: { chat.test: { apiMappings: [ { apiId: chat, stage: prod } ] } }".to_owned(),
            ..Settings::new(&backend)
        };
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
    check(&intermediate.certificate, &intermediate.key, "is missing: it ends with a certificate of `CN=test`");
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
    let missing = Settings {
        public: "tls: { certificates: [ { certificate: /not/there.pem, privateKey: /not/there.key } ] }".to_owned(),
        ..Settings::new(&backend)
    };
    assert!(missing.problems().contains("listeners.public.tls: could not read `/not/there.pem`"));
}

#[tokio::test]
async fn keys_of_every_form_are_read() {
    let authority = Authority::new("test");
    let backend = Backend::start().await;
    let path = |name: &str| authority.path(name).display().to_string();
    let key = path("form.key");
    let forms: [(&str, &[&str]); 3] = [
        ("PKCS#8", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &key]),
        ("PKCS#1", &["genrsa", "-traditional", "-out", &key, "2048"]),
        ("SEC1", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]),
    ];
    for (form, arguments) in forms {
        let (succeeded, output) = run("openssl", arguments, &[], b"").await;
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
        let (succeeded, output) = run("openssl", &arguments, &[], b"").await;
        assert!(succeeded, "{form}: {output}");
        let settings = Settings {
            public: format!("tls: {{ certificates: [ {{ certificate: {certificate}, privateKey: {key} }} ] }}"),
            ..Settings::new(&backend)
        };
        assert_eq!(settings.problems(), "", "{form}");
    }
    // A certificate that signs itself needs no chain.
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["chat.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pair = crate::support::Issued { certificate: certificate.pem(), key: key.serialize_pem() };
    let pair = authority.write_pair("self", &pair);
    let settings = Settings { public: format!("tls: {{ certificates: [ {pair} ] }}"), ..Settings::new(&backend) };
    assert_eq!(settings.problems(), "");
}
