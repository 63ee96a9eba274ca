//! Any request with any signature: nothing panics, and nobody is let in without the secret.
//!
//! Input: request target, Host, Authorization and body, with line feeds between them.

#![no_main]

use http::{HeaderMap, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;
use tidegate::iam::Received;
use tidegate::iam::sigv4::{is_right, moment};

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
    let received = Received { method: &Method::POST, uri: &uri, headers: &headers, body: body.as_bytes() };
    let now = moment("20261120T120000Z").expect("a date");
    assert_ne!(is_right(&received, "a secret that nobody knows", now), Ok(true));
});
