//! Any request with any signature: nothing panics, and nobody is let in without the secret.
//!
//! Input: request target, Host, Authorization and body, with line feeds between them.

#![no_main]

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;
use tidegate_access::iam::sigv4::moment;
use tidegate_access::iam::{Arns, Credential, Credentials, Received};

/// A key whose id inputs can guess and whose secret they cannot.
static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let credential = Credential {
        access_key_id: "K".to_owned(),
        secret_access_key: "a secret that nobody knows".to_owned().into(),
        session_token: None,
        expiration: None,
        policy_document: None,
    };
    Credentials::compile(&[("key".to_owned(), credential)].into(), &Arc::new(Arns::default()), &mut Vec::new())
});

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(4, '\n');
    let [target, host, authorization, body] = [(); 4].map(|()| parts.next().unwrap_or_default());
    let Ok(uri) = target.parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-date", HeaderValue::from_static("20261120T120000Z"));
    for (name, value) in [("host", host), ("authorization", authorization)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    }
    let received = Received { method: &Method::POST, uri: &uri, headers: &headers };
    let now = moment("20261120T120000Z").expect("a date");
    assert!(CREDENTIALS.authenticate(received, body.as_bytes(), now).is_err());
});
