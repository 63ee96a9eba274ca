use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;

/// Returns the headers that sign a request with (key, secret), and those that the signature covers beside `host`.
pub fn signed(
    (key, secret): (&str, &str),
    (method, host, target): (&str, &str, &str),
    covered: &[(&str, &str)],
    body: &[u8],
) -> Vec<(String, String)> {
    let identity = Credentials::new(key, secret, None, None, "test").into();
    #[expect(clippy::disallowed_methods, reason = "a signer has a clock of its own")]
    let now = SystemTime::now();
    let params = SigningParams::builder().identity(&identity).region("us-east-1").name("execute-api").time(now);
    let params = params.settings(SigningSettings::default()).build().expect("parameters").into();
    let url = format!("http://{host}{target}");
    let headers = [&[("host", host)], covered].concat();
    let request = SignableRequest::new(method, &url, headers.iter().copied(), SignableBody::Bytes(body));
    let (instructions, _) = sign(request.expect("a request"), &params).expect("a signature").into_parts();
    let made = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let given = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    given.chain(made).collect()
}
