//! Recorded requests of AWS's SDKs pass verification; changed ones do not.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;

use super::{Received, SignatureError};
use crate::iam::{Arns, Credential, Credentials};
use tidegate_core::clock::Timestamp;

/// Access key id of all recorded requests.
const KEY: &str = "AKIDEXAMPLE";
const TOKEN: &str = "example-session-token/with+signs==";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A request that a test changes before it is verified.
#[derive(Clone, Debug)]
struct Request {
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Vec<u8>,
    now: Timestamp,
    /// Session token of the key.
    token: Option<&'static str>,
}

impl Request {
    /// Parses a recorded request and takes the time when it was signed as the present.
    fn recorded(text: &[u8]) -> Self {
        let end = text.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&text[..end]).expect("text");
        let mut lines = head.split("\r\n");
        let mut words = lines.next().expect("a request line").split(' ');
        let method = words.next().expect("a method").parse().expect("a method");
        let uri = words.next().expect("a path").to_owned();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').expect("a header");
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value.trim()).expect("a value"));
        }
        let date = headers.get("x-amz-date").map(|date| date.to_str().expect("text").to_owned());
        let date = date.or_else(|| uri.split("X-Amz-Date=").nth(1).map(|rest| rest[..16].to_owned()));
        let now = super::moment(&date.expect("a date")).expect("a date");
        let has_token = head.to_ascii_lowercase().contains("x-amz-security-token");
        Request { method, uri, headers, body: text[end + 4..].to_vec(), now, token: has_token.then_some(TOKEN) }
    }

    /// Checks the signature for a gateway that knows one key with `secret`.
    fn verify(&self, secret: &str) -> Result<(), SignatureError> {
        let uri: Uri = self.uri.parse().expect("a URI");
        let received = Received { method: &self.method, uri: &uri, headers: &self.headers };
        credentials(KEY, secret, self.token).authenticate(received, &self.body, self.now).map(drop)
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        self
    }

    fn append(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).expect("a value"));
        self
    }

    fn without(mut self, name: &'static str) -> Self {
        self.headers.remove(name);
        self
    }

    fn authorization(self, change: impl Fn(&str) -> String) -> Self {
        let old = self.headers["authorization"].to_str().expect("text").to_owned();
        let new = change(&old);
        assert_ne!(old, new, "nothing was changed");
        self.set("authorization", &new)
    }

    fn replaced(self, from: &str, to: &str) -> Self {
        self.authorization(|old| old.replace(from, to))
    }

    fn uri(mut self, change: impl Fn(&str) -> String) -> Self {
        let new = change(&self.uri);
        assert_ne!(self.uri, new, "nothing was changed");
        self.uri = new;
        self
    }

    fn later(mut self, seconds: i64) -> Self {
        self.now = Timestamp(self.now.millis().saturating_add_signed(seconds * 1000));
        self
    }
}

/// Compiles one key.
fn credentials(access_key_id: &str, secret: &str, token: Option<&str>) -> Credentials {
    let credential = Credential {
        access_key_id: access_key_id.to_owned(),
        secret_access_key: secret.to_owned().into(),
        session_token: token.map(|token| token.to_owned().into()),
        expiration: None,
        policy_document: None,
    };
    let settings = [("backend".to_owned(), credential)].into();
    Credentials::compile(&settings, &Arc::new(Arns::default()), &mut Vec::new())
}

macro_rules! recorded {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../../../../../tests/aws_parity/signed_requests/", $name, ".http")).as_slice())),*]
    };
}

fn recorded(wanted: &str) -> Request {
    let found = RECORDED.iter().find(|(name, _)| *name == wanted);
    Request::recorded(found.unwrap_or_else(|| panic!("{wanted} is not recorded")).1)
}

const RECORDED: [(&str, &[u8]); 34] = recorded![
    "awscli_delete",
    "awscli_get",
    "awscli_post",
    "boto3_delete",
    "boto3_get",
    "boto3_post",
    "boto3_old_delete",
    "boto3_old_get",
    "boto3_old_post",
    "boto3_token_delete",
    "boto3_token_get",
    "boto3_token_post",
    "encoded_at_post",
    "js2_delete",
    "js2_get",
    "js2_post",
    "js2_slash_delete",
    "js2_slash_get",
    "js2_slash_post",
    "js3_delete",
    "js3_get",
    "js3_post",
    "js3_slash_delete",
    "js3_slash_get",
    "js3_slash_post",
    "js3_token_delete",
    "js3_token_get",
    "js3_token_post",
    "presigned_connect_get",
    "presigned_connect_token_get",
    "rust_delete",
    "rust_get",
    "rust_post",
    "signed_connect_get",
];

#[test]
fn recorded_requests_of_all_sdks_verify_with_their_key_and_no_other() {
    for (name, text) in RECORDED {
        let request = Request::recorded(text);
        assert_eq!(request.verify(SECRET), Ok(()), "{name}");
        assert_eq!(request.verify("another secret"), Err(SignatureError::Mismatch), "{name}");
        assert_eq!(request.clone().later(300).verify(SECRET), Ok(()), "{name} at the end of its time");
        assert_eq!(request.later(-300).verify(SECRET), Ok(()), "{name} before its time");
    }
}

/// Returns the reason why a request was refused, in one or two words.
fn refused(request: &Request) -> &'static str {
    match request.verify(SECRET) {
        Ok(()) => "accepted",
        Err(SignatureError::Missing) => "missing",
        Err(SignatureError::Incomplete(_)) => "incomplete",
        Err(SignatureError::Invalid(_)) => "invalid",
        Err(SignatureError::UnknownKey | SignatureError::Expired) => "another key",
        Err(SignatureError::Mismatch) => "wrong",
    }
}

#[test]
fn forged_headers_are_refused_each_for_its_own_reason() {
    let check = |what: &str, request: Request, expected: &str| assert_eq!(refused(&request), expected, "{what}");
    let post = || recorded("boto3_post");
    let js = || recorded("js3_post");
    check("as it is", post(), "accepted");

    check("no header", post().without("authorization"), "missing");
    check("another body", Request { body: b"hullo".to_vec(), ..post() }, "wrong");
    check("no body", Request { body: Vec::new(), ..post() }, "wrong");
    check("a longer body", Request { body: b"hello ".to_vec(), ..post() }, "wrong");
    check("another method", Request { method: Method::DELETE, ..post() }, "wrong");
    check("another path", post().uri(|uri| uri.replace("R0oX", "S0oX")), "wrong");
    check("another stage", post().uri(|uri| uri.replace("/prod/", "/dev/")), "wrong");
    check("a parameter more", post().uri(|uri| format!("{uri}?code=4001")), "wrong");
    check("an encoding less", post().uri(|uri| uri.replace("%3D", "=")), "wrong");
    check("an encoding more", post().uri(|uri| uri.replace("%3D", "%253D")), "wrong");
    check("lower case in an escape", post().uri(|uri| uri.replace("%3D", "%3d")), "wrong");
    check("another host", post().set("host", "example.com"), "wrong");
    check("two hosts", post().append("host", "example.com"), "incomplete");
    check("no host", post().without("host"), "wrong");
    check("another date of the same time", post().set("x-amz-date", "20261120T120433Z"), "wrong");
    check("two dates", post().append("x-amz-date", "20261120T120433Z"), "incomplete");
    check("no date", post().without("x-amz-date"), "incomplete");
    check("a date that is none", post().set("x-amz-date", "20261320T120433Z"), "incomplete");
    check("a date in another form", post().set("x-amz-date", "2026-11-20T12:04:33Z"), "incomplete");
    check("a date before 1970", post().set("x-amz-date", "19691120T120433Z"), "incomplete");
    check("too late", post().later(301), "invalid");
    check("too early", post().later(-301), "invalid");
    check("a day later", post().later(86_400), "invalid");
    check("another day in the scope", post().replaced("/20261120/", "/20261121/"), "invalid");
    check("a short day in the scope", post().replaced("/20261120/", "/2026112/"), "invalid");
    check("another region", post().replaced("us-east-1", "eu-west-1"), "wrong");
    check("no region", post().replaced("us-east-1", ""), "incomplete");
    check("another service", post().replaced("execute-api", "s3"), "invalid");
    check("another terminator", post().replaced("aws4_request", "aws5_request"), "invalid");
    check("a short scope", post().replaced("/us-east-1/execute-api/aws4_request", ""), "incomplete");
    check("another algorithm", post().replaced("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), "incomplete");
    check("an asymmetric algorithm", post().replaced("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "incomplete");
    check("no algorithm", post().replaced("AWS4-HMAC-SHA256 ", ""), "incomplete");
    check("another scheme", post().set("authorization", "Bearer a.b.c"), "incomplete");
    check("an empty header", post().set("authorization", ""), "incomplete");
    check("two headers", post().append("authorization", "x"), "incomplete");
    check("no credential", post().replaced("Credential=", "credential="), "incomplete");
    check("two credentials", post().replaced("Credential=", "Credential=x, Credential="), "incomplete");
    check("two signatures", post().replaced("Signature=", "Signature=x, Signature="), "incomplete");
    check("an unknown parameter", post().replaced("Credential=", "Extra=1, Credential="), "incomplete");
    check("a parameter without a value", post().replaced("Credential=", "Extra, Credential="), "incomplete");
    let signature = |change: fn(&str) -> String| {
        post().authorization(|old| {
            let (before, signature) = old.rsplit_once('=').expect("a signature");
            format!("{before}={}", change(signature))
        })
    };
    check("a signature in upper case", signature(str::to_uppercase), "wrong");
    check("an empty signature", signature(|_| String::new()), "incomplete");
    check("a short signature", signature(|old| old[1..].to_owned()), "wrong");
    check("a long signature", signature(|old| format!("{old}0")), "wrong");
    check("a signature that is no hex", signature(|old| format!("g{}", &old[1..])), "wrong");
    check("a signature of zeros", signature(|_| "0".repeat(64)), "wrong");
    check("a signature backwards", signature(|old| old.chars().rev().collect()), "wrong");
    check(
        "the last digit",
        signature(|old| format!("{}{}", &old[..63], if old.ends_with('0') { '1' } else { '0' })),
        "wrong",
    );

    let names = "host;x-amz-date";
    check("no signed headers", post().replaced(names, ""), "incomplete");
    check("no host among them", post().replaced(names, "x-amz-date"), "invalid");
    check("no date among them", post().replaced(names, "host"), "wrong");
    check("out of order", post().replaced(names, "x-amz-date;host"), "invalid");
    check("one twice", post().replaced(names, "host;host;x-amz-date"), "invalid");
    check("in upper case", post().replaced(names, "Host;x-amz-date"), "invalid");
    check("one that is not there", post().replaced(names, "host;x-amz-date;x-missing"), "wrong");
    check("one that is there", post().set("x-more", "1").replaced(names, "host;x-amz-date;x-more"), "wrong");
    check("the header itself", post().replaced(names, "authorization;host;x-amz-date"), "wrong");
    check("an empty one", post().replaced(names, ";host;x-amz-date"), "wrong");
    let many: String = (0..70).map(|n| format!(";z{n:02}")).collect();
    check("too many", post().replaced(names, &format!("{names}{many}")), "invalid");
    check("a header that is not signed", post().set("x-amz-security-token", "stolen"), "invalid");

    check("another signed header", js().set("content-type", "text/plain"), "wrong");
    check("a signed header twice", js().append("content-type", "application/octet-stream"), "wrong");
    check("a signed header gone", js().without("amz-sdk-request"), "wrong");
    check("another body than the hash", Request { body: b"hullo".to_vec(), ..js() }, "invalid");
    check("a hash of another body", js().set("x-amz-content-sha256", &"0".repeat(64)), "wrong");
    check("a body left out", js().set("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), "wrong");
    check("a body left out unsigned", post().set("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), "invalid");
    check("a body in pieces", js().set("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), "invalid");
    check("two hashes", js().append("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), "incomplete");
    check("another token", recorded("boto3_token_post").set("x-amz-security-token", "other"), "wrong");
    check("no token", recorded("boto3_token_post").without("x-amz-security-token"), "wrong");
    let replayed = Request { uri: recorded("boto3_get").uri, ..recorded("boto3_delete") };
    check("a signature of another call", Request { method: Method::GET, ..replayed }, "wrong");
}

#[test]
fn forged_queries_are_refused_each_for_its_own_reason() {
    let check = |what: &str, request: Request, expected: &str| assert_eq!(refused(&request), expected, "{what}");
    let get = || recorded("presigned_connect_get");
    let with = |from: &'static str, to: &'static str| get().uri(move |uri| uri.replacen(from, to, 1));
    check("as it is", get(), "accepted");
    check(
        "in another order",
        get().uri(|uri| {
            let (path, query) = uri.split_once('?').expect("a query");
            let mut pairs: Vec<_> = query.split('&').collect();
            pairs.reverse();
            format!("{path}?{}", pairs.join("&"))
        }),
        "accepted",
    );
    check("too late", get().later(301), "invalid");
    check("too early", get().later(-301), "invalid");
    check("a longer life", with("X-Amz-Expires=300", "X-Amz-Expires=600"), "wrong");
    check("no life", with("X-Amz-Expires=300", "X-Amz-Expires=0"), "incomplete");
    check("a life below nothing", with("X-Amz-Expires=300", "X-Amz-Expires=-1"), "incomplete");
    check("a life with a sign", with("X-Amz-Expires=300", "X-Amz-Expires=%2B300"), "incomplete");
    check("a huge life", with("X-Amz-Expires=300", "X-Amz-Expires=99999999999999999999999"), "incomplete");
    check("a life of more than a week", with("X-Amz-Expires=300", "X-Amz-Expires=604801"), "incomplete");
    check("without its life", with("X-Amz-Expires=300&", ""), "wrong");
    check("two lives", with("X-Amz-Expires=300", "X-Amz-Expires=300&X-Amz-Expires=300"), "incomplete");
    check("another parameter", with("tag=b", "tag=c"), "wrong");
    check("a parameter less", with("&tag=b", ""), "wrong");
    check("a parameter more", get().uri(|uri| format!("{uri}&admin=true")), "wrong");
    check("another path", with("/prod?", "/dev?"), "wrong");
    check("another algorithm", with("AWS4-HMAC-SHA256", "none"), "incomplete");
    check("no algorithm", with("X-Amz-Algorithm=AWS4-HMAC-SHA256&", ""), "incomplete");
    check("no credential", with("X-Amz-Credential", "x-amz-credential"), "incomplete");
    check("no date", with("X-Amz-Date", "x-amz-date"), "incomplete");
    check("no signed headers", with("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="), "incomplete");
    check("another signed header", with("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=accept"), "invalid");
    check("no signature", with("X-Amz-Signature", "X-Amz-Signatur"), "incomplete");
    check("two signatures", get().uri(|uri| format!("{uri}&X-Amz-Signature=0")), "incomplete");
    check("a header too", get().set("authorization", "AWS4-HMAC-SHA256 Credential=x"), "incomplete");
    check("another token in a header", get().set("x-amz-security-token", "x"), "invalid");
    check("bytes that are no text", get().uri(|uri| uri.replacen("blue", "%FF", 1)), "wrong");
    check("a body", Request { body: b"x".to_vec(), ..get() }, "wrong");
    let token = recorded("presigned_connect_token_get");
    check("another token", token.uri(|uri| uri.replacen("example-session", "another-session", 1)), "wrong");
}

#[test]
fn a_signer_may_leave_the_body_out_by_signing_that_it_does() {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4::SigningParams;

    let mut request = recorded("boto3_post").set("x-amz-content-sha256", "UNSIGNED-PAYLOAD").without("authorization");
    let identity = Credentials::new("AKIDEXAMPLE", SECRET, None, None, "test").into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("execute-api")
        .time(UNIX_EPOCH + Duration::from_millis(request.now.millis()))
        .settings(SigningSettings::default())
        .build()
        .expect("parameters");
    let headers = [("host", "127.0.0.1:8099"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
    let signable = SignableRequest::new(
        "POST",
        format!("http://127.0.0.1:8099{}", request.uri),
        headers.into_iter(),
        SignableBody::UnsignedPayload,
    );
    let (instructions, _) = sign(signable.expect("a request"), &params.into()).expect("a signature").into_parts();
    for (name, value) in instructions.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        request.headers.insert(name, HeaderValue::from_str(value).expect("a value"));
    }
    assert_eq!(refused(&request), "accepted");
    request.body = b"anything".to_vec();
    assert_eq!(refused(&request), "accepted");
}

proptest! {
    #[test]
    fn any_request_and_any_authorization_never_panic(
        path in "/[!-~]{0,40}",
        authorization in prop_oneof![
            ".{0,60}",
            "AWS4-HMAC-SHA256 Credential=[a-z/]{0,20}, SignedHeaders=[a-z;-]{0,20}, Signature=[0-9a-f]{0,64}",
            "AWS4-HMAC-SHA256 Credential=K/20261120/[a-z0-9-]{0,9}/execute-api/aws4_request, \
             SignedHeaders=(accept;)?host(;x-amz-date)?, Signature=[0-9a-f]{64}",
        ],
        host in "[ -~]{0,20}",
        body in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-date", HeaderValue::from_static("20261120T120000Z"));
        for (name, value) in [("authorization", &authorization), ("host", &host), ("accept", &host)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        let received = Received { method: &Method::POST, uri: &uri, headers: &headers };
        let now = super::moment("20261120T120000Z").expect("a date");
        let checked = credentials("K", SECRET, None).authenticate(received, &body, now);
        prop_assert!(checked.is_err(), "{:?}", checked);
    }

    #[test]
    fn any_byte_that_is_changed_breaks_a_signature(at in any::<prop::sample::Index>(), flipped in 1u8..=255) {
        let mut request = recorded("boto3_post");
        let at = at.index(request.body.len());
        request.body[at] ^= flipped;
        prop_assert_eq!(request.verify(SECRET), Err(SignatureError::Mismatch));
    }
}
