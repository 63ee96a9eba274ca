//! Bodies of calls that must be signed: whoever cannot have signed one is refused before it, and what strangers make
//! the gateway hold is bounded.

use std::net::SocketAddr;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tidegate_testing::{TestBackend, TestGateway, connect, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const WRONG: &str = "another secret";

/// The memory that all unverified calls together may make the gateway hold.
const UNVERIFIED_BYTES: usize = 32 * 1024 * 1024;

/// `limits.bulkBytes`.
const BULK_BYTES: usize = 1024 * 1024;

async fn start(backend: &TestBackend) -> TestGateway {
    TestGateway::start(&format!(
        "
credentials:
  all: {{ accessKeyId: AKIDALL, secretAccessKey: {SECRET} }}
apis:
  chat:
    routeSelectionExpression: $request.body.action
    integrations:
      backend: {{ integrationType: AWS_PROXY, integrationUri: {} }}
    routes:
      $connect: {{ target: integrations/backend }}
      $default: {{ target: integrations/backend }}
    stages: {{ prod: {{}} }}
",
        backend.url()
    ))
    .await
}

/// A signed POST to `path`.
#[derive(Clone, Copy)]
struct Call<'a> {
    host: &'a str,
    path: &'a str,
    key: &'a str,
    secret: &'a str,
    body: &'a [u8],
    /// The hash of the body is a header, as some SDKs have it.
    names_hash: bool,
}

impl Call<'_> {
    /// Returns the headers, from the one behind the Host to the empty line.
    fn headers(&self) -> String {
        let identity = Credentials::new(self.key, self.secret, None, None, "test").into();
        let mut settings = SigningSettings::default();
        if self.names_hash {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        #[expect(clippy::disallowed_methods, reason = "a signer has a clock of its own")]
        let now = SystemTime::now();
        let params = SigningParams::builder().identity(&identity).region("us-east-1").name("execute-api").time(now);
        let params = params.settings(settings).build().expect("parameters").into();
        let url = format!("http://{}{}", self.host, self.path);
        let request = SignableRequest::new("POST", url, std::iter::empty(), SignableBody::Bytes(self.body));
        let (instructions, _) = sign(request.expect("a request"), &params).expect("a signature").into_parts();
        let headers = instructions.headers().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("{}content-length: {}\r\n\r\n", headers.collect::<String>(), self.body.len())
    }

    /// Returns the bytes of the request for `target` and `host`, which may differ from the signed ones.
    fn bytes(&self, target: &str, host: &str) -> Vec<u8> {
        let head = format!("POST {target} HTTP/1.1\r\nhost: {host}\r\n{}", self.headers());
        [head.as_bytes(), self.body].concat()
    }
}

/// Sends bytes, and gives the connection with the status and the head of the answer.
async fn sent(address: SocketAddr, bytes: &[u8]) -> (TcpStream, u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // The gateway may refuse before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0, "no answer");
    }
    let answer = String::from_utf8(answer).expect("text");
    (stream, answer[9..12].parse().expect("a status"), answer.to_ascii_lowercase())
}

async fn status(address: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let (_, status, head) = sent(address, bytes).await;
    let error = head.lines().find_map(|line| line.strip_prefix("x-amzn-errortype: "));
    (status, error.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn who_cannot_have_signed_a_call_is_refused_before_its_body_is_there() {
    let backend = TestBackend::saying_hello().await;
    let gateway = start(&backend).await;
    let host = gateway.public().to_string();
    let body = vec![b'x'; 1000];
    for (key, secret, names_hash, error) in [
        ("AKIDNOBODY", SECRET, false, "unrecognizedclientexception"),
        ("AKIDNOBODY", SECRET, true, "unrecognizedclientexception"),
        ("AKIDALL", WRONG, true, "invalidsignatureexception"),
    ] {
        let call = Call { host: &host, path: "/prod/@send", key, secret, body: &body, names_hash };
        let bytes = call.bytes(call.path, &host);
        // The last byte is never sent.
        let (status, found) = status(gateway.public(), &bytes[..bytes.len() - 1]).await;
        assert_eq!((status, &*found), (403, error), "{key} {names_hash}");
        // Nor is anything, if the caller waits to be asked for it.
        let waits =
            String::from_utf8(bytes).unwrap().replacen("content-length", "expect: 100-continue\r\ncontent-length", 1);
        let (_, status, head) = sent(gateway.public(), &waits.as_bytes()[..waits.len() - body.len()]).await;
        assert!(status == 403 && head.contains(error), "{key} {names_hash}: {head}");
    }
}

#[tokio::test]
async fn a_named_hash_is_compared_with_the_body_that_came() {
    let backend = TestBackend::saying_hello().await;
    let gateway = start(&backend).await;
    let mut client = connect(&gateway.url("/prod"), &[]).await;
    let event = backend.next_call().await.event();
    let id = event["requestContext"]["connectionId"].as_str().expect("an id").replace('=', "%3D");
    let (host, path) = (gateway.public().to_string(), format!("/prod/@connections/{id}"));
    for names_hash in [true, false] {
        let call = Call { host: &host, path: &path, key: "AKIDALL", secret: SECRET, body: b"hello", names_hash };
        let bytes = call.bytes(&path, &host);
        assert_eq!(status(gateway.public(), &bytes).await, (200, String::new()));
        assert_eq!(client.next_text().await, "hello");
        let forged = [&bytes[..bytes.len() - 5], b"hullo"].concat();
        assert_eq!(status(gateway.public(), &forged).await, (403, "invalidsignatureexception".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_not_verified_are_bounded_together_and_others_pass() {
    let backend = TestBackend::saying_hello().await;
    let gateway = start(&backend).await;
    let mut client = connect(&gateway.url("/prod"), &[]).await;
    let event = backend.next_call().await.event();
    let id = event["requestContext"]["connectionId"].as_str().expect("an id").replace('=', "%3D");
    let (host, path) = (gateway.public().to_string(), format!("/prod/@connections/{id}"));
    let large = vec![b'x'; BULK_BYTES];
    let flood =
        Call { host: &host, path: "/prod/@send", key: "AKIDALL", secret: WRONG, body: &large, names_hash: false };
    let bytes = flood.bytes(flood.path, &host);
    let but_one = &bytes[..bytes.len() - 1];
    let mut flooding: FuturesUnordered<_> =
        (0..UNVERIFIED_BYTES / BULK_BYTES + 8).map(|_| sent(gateway.public(), but_one)).collect();
    let (_stream, status_of_one, head) = flooding.next().await.expect("an answer");
    assert_eq!(status_of_one, 503, "{head}");
    assert!(head.contains("retry-after: 1") && head.contains("serviceunavailableexception"), "{head}");

    let call = Call { host: &host, path: &path, key: "AKIDALL", secret: SECRET, body: b"hello", names_hash: true };
    assert_eq!(status(gateway.public(), &call.bytes(&path, &host)).await, (200, String::new()));
    assert_eq!(client.next_text().await, "hello");
    let unsigned = format!("POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\n\r\nhi", gateway.internal());
    assert_eq!(status(gateway.internal(), unsigned.as_bytes()).await, (200, String::new()));
    assert_eq!(client.next_text().await, "hi");

    drop(flooding);
    let call = Call { names_hash: false, ..call };
    eventually("a call that names no hash", async || {
        status(gateway.public(), &call.bytes(&path, &host)).await == (200, String::new())
    })
    .await;
}

#[tokio::test]
async fn a_call_with_a_whole_url_as_its_target_is_signed_for_the_host_in_it() {
    let backend = TestBackend::saying_hello().await;
    let gateway = start(&backend).await;
    let path = "/prod/@connections/AAAAAAAAAAAAAAAAAAA%3D";
    let call = |host| Call { host, path, key: "AKIDALL", secret: SECRET, body: b"hi", names_hash: false };
    for (what, signed, target, host, expected) in [
        ("a path", "gw.test", path.to_owned(), "gw.test", 410),
        ("as an SDK behind a proxy sends it", "gw.test:81", format!("http://gw.test:81{path}"), "gw.test:81", 410),
        ("the port that needs no name", "gw.test", format!("http://gw.test:80{path}"), "gw.test", 410),
        ("the port of https", "gw.test", format!("https://gw.test:443{path}"), "gw.test", 410),
        ("upper case", "gw.test", format!("http://GW.Test{path}"), "gw.test", 410),
        ("another Host than the signed one", "gw.test", format!("http://gw.test{path}"), "other.test", 410),
        ("another target than the signed one", "gw.test", format!("http://other.test{path}"), "gw.test", 403),
        ("another port than the signed one", "gw.test", format!("http://gw.test:443{path}"), "gw.test", 403),
    ] {
        let (status, error) = status(gateway.public(), &call(signed).bytes(&target, host)).await;
        assert_eq!(status, expected, "{what}: {error}");
    }
}
