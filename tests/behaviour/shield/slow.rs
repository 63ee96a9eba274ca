//! Clients that are slow on purpose: each wait of a connection has its end, and a connection is idle only for as long as its last
//! request has earned.

use tidegate_testing::{
    Authority, Reply, Settings, TestBackend, TestClient, connect_narrow, connect_tls, raw_on, within,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::shield::handshake;

const IMPATIENT: &str = "limits: { slowClientTimeoutSeconds: 1, handshakeTimeoutSeconds: 2 }";

/// Sends requests and reads no answer, until the gateway has closed.
async fn never_reads<S: AsyncWrite + Unpin>(what: &str, stream: &mut S, request: &[u8]) {
    let requests = request.repeat(100);
    within(what, async {
        // The end of a connection with answers in it is a reset.
        while stream.write_all(&requests).await.is_ok() && stream.flush().await.is_ok() {}
    })
    .await;
}

/// Waits for the end of the connection.
async fn end<S: AsyncRead + Unpin>(what: &str, stream: &mut S) {
    let mut rest = Vec::new();
    let _ = within(what, stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn answers_that_nobody_takes_close_their_connection() {
    let authority = Authority::new("test");
    let backend = TestBackend::start().await.echoing();
    let pair = authority.write_pair("it", &authority.issue(&["chat.test"]));
    let tls = format!("tls: {{ certificates: [ {pair} ] }}");
    let plain = Settings::aws_proxy(&backend).section(IMPATIENT).start().await;
    let guarded = Settings::aws_proxy(&backend).public(tls).section(IMPATIENT).start().await;
    let (public, internal) = (plain.public(), plain.internal());
    let mut bystander = TestClient::enter(public).await;
    let refused = b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let page = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (mut a, mut b, mut c) =
        (connect_narrow(public).await, connect_narrow(internal).await, connect_narrow(internal).await);
    let mut d = connect_tls(guarded.public(), authority.client(None), "chat.test").await.unwrap();
    tokio::join!(
        never_reads("refusals", &mut a, refused),
        never_reads("refusals of the internal listener", &mut b, refused),
        never_reads("pages", &mut c, page),
        never_reads("refusals over TLS", &mut d, refused),
    );
    bystander.echo("still here").await;
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off_whatever_came_before_it() {
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).section(IMPATIENT).start().await;
    let mut bystander = TestClient::enter(gateway.public()).await;
    for address in [gateway.public(), gateway.internal()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A callback that is valid, so that the connection is kept for long.
        let call = b"GET /prod/@connections/AAAAAAAAAAAAAAAAAAA= HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = raw_on(&mut stream, call).await;
        assert!(answer.starts_with("HTTP/1.1 410"), "{answer}");
        stream.write_all(b"GET /prod HTTP/1.1\r\nHos").await.unwrap();
        end("a second head that trickles", &mut stream).await;
    }
    bystander.echo("still here").await;
}

#[tokio::test]
async fn a_body_that_stands_still_is_408() {
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).section(IMPATIENT).start().await;
    for address in [gateway.public(), gateway.internal()] {
        for body in
            ["Content-Length: 3\r\n\r\nhi", "Content-Length: 3\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi"]
        {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let post = format!("POST /prod/@connections/AAAAAAAAAAAAAAAAAAA= HTTP/1.1\r\nHost: localhost\r\n{body}");
            let answer = raw_on(&mut stream, post.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 408"), "{body}: {answer}");
            end("a body that stood still", &mut stream).await;
        }
    }
}

#[tokio::test]
async fn strangers_are_kept_for_seconds_and_everybody_else_for_a_minute() {
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).start().await;
    let trusting = Settings::aws_proxy(&backend).public("trustedProxies: [ 127.0.0.1 ]").start().await;
    let refusing =
        Settings::aws_proxy(&TestBackend::start_with(|_| Reply::redirect("http://127.0.0.1:1/")).await).start().await;
    let upgrade = handshake("a", "");
    let nope = b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice();
    let callback = b"GET /prod/@connections/AAAAAAAAAAAAAAAAAAA= HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice();
    let (public, internal) = (gateway.public(), gateway.internal());
    let mut kept = Vec::new();
    for (what, address, request, status) in [
        ("a callback that met a route", public, callback, "410"),
        ("the internal listener", internal, nope, "403"),
        ("a trusted proxy", trusting.public(), nope, "403"),
        ("a client that its backend refused", refusing.public(), &upgrade, "502"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(raw_on(&mut stream, request).await.starts_with(&format!("HTTP/1.1 {status}")), "{what}");
        kept.push((what, stream, request, status));
    }
    let mut strangers = Vec::new();
    for request in [nope.to_vec(), handshake("a b", ""), handshake("a", "Origin: x\r\nSec-WebSocket-Key: y\r\n")] {
        let mut stream = TcpStream::connect(public).await.unwrap();
        let answer = raw_on(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        // The last request counts: what came before it has earned nothing.
        assert!(raw_on(&mut stream, callback).await.starts_with("HTTP/1.1 410"));
        assert!(raw_on(&mut stream, &request).await.starts_with("HTTP/1.1 4"));
        strangers.push(stream);
    }
    for stream in &mut strangers {
        end("a stranger's connection", stream).await;
    }
    for (what, mut stream, request, status) in kept {
        assert!(raw_on(&mut stream, request).await.starts_with(&format!("HTTP/1.1 {status}")), "{what}");
    }
}
