//! Calls whose backend answers badly, late or not at all.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Server, TestClient, call, call_within, eventually, read_request};
use crate::http_client::{Answer, Call, CallError};

/// Calls a server that answers each request with `text` and closes the connection.
async fn call_one_that_says(text: &'static [u8]) -> Result<Answer, CallError> {
    let server = Server::start(move |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(text).await;
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 2);
    let result = test.get(&backend, "/").await;
    eventually("the connection is gone", || backend.counts().open == 0).await;
    result
}

#[tokio::test]
async fn an_answer_that_ends_early_or_makes_no_sense_is_lost() {
    for text in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\0\x01\x02\x03",
    ] {
        let error = call_one_that_says(text).await.expect_err("no whole answer");
        assert!(matches!(error, CallError::Lost(_)), "{error:?} for {text:?}");
        assert!(error.may_have_been_received());
    }
}

#[tokio::test]
async fn any_whole_answer_is_an_answer() {
    let answer = call_one_that_says(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(answer.headers[header::LOCATION], "/elsewhere");

    let answer = call_one_that_says(b"HTTP/1.0 500 Oops\r\n\r\nuntil the end").await.expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::INTERNAL_SERVER_ERROR, &b"until the end"[..]));

    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx: y\r\n\r\n";
    assert_eq!(&call_one_that_says(chunked).await.expect("an answer").body[..], b"abcde");
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let server = Server::start(|stream| async move { drop(stream) });
    let test = TestClient::new();
    // Port 1 is not listened on, and the name does not exist.
    for uri in ["http://127.0.0.1:1/", "http://name.invalid/"] {
        let backend = test.client.backend(&uri.parse().expect("a URI"), false, 4).expect("an address");
        let results = futures_util::future::join_all((0..20).map(|_| test.get(&backend, "/"))).await;
        for result in results {
            let error = result.expect_err("nobody is there");
            assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
            assert!(!error.may_have_been_received());
        }
        // One attempt more than was needed may still be under way.
        eventually("no attempt is left", || backend.counts().open == 0).await;
        assert_eq!(backend.counts().waiting, 0);
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_timeout_tells_whether_the_request_was_sent() {
    let server = Server::start(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 1);
    let (first, second) = tokio::join!(
        test.client.send(&backend, || call_within("/", Duration::from_millis(300))),
        test.client.send(&backend, || call_within("/", Duration::from_millis(200))),
    );
    assert!(matches!(first, Err(CallError::TimedOut { sent: true })), "{first:?}");
    assert!(matches!(second, Err(CallError::TimedOut { sent: false })), "{second:?}");
    eventually("the connection is gone", || backend.counts().open == 0).await;
}

/// Writes `head`, then pieces of a body until the client has enough.
async fn write_endlessly(mut stream: TcpStream, head: &[u8], piece: &[u8], pause: Duration) {
    read_request(&mut stream).await;
    let mut result = stream.write_all(head).await;
    while result.is_ok() {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        result = stream.write_all(piece).await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read_to_its_end() {
    for head in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        let piece = [b"400\r\n".to_vec(), vec![b'a'; 1024], b"\r\n".to_vec()].concat();
        let piece: &'static [u8] = piece.leak();
        let server = Server::start(move |stream| write_endlessly(stream, head, piece, Duration::ZERO));
        let test = TestClient::new();
        let backend = test.backend(&server, 1);
        let error = test.get(&backend, "/").await.expect_err("too large");
        assert!(matches!(error, CallError::TooLarge { max: 1_048_576, .. }), "{error:?}");
        eventually("the connection is gone", || backend.counts().open == 0).await;
    }
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_by_the_deadline() {
    let head = b"HTTP/1.1 200 OK\r\n\r\n";
    let server = Server::start(|stream| write_endlessly(stream, head, b"a", Duration::from_millis(5)));
    let test = TestClient::new();
    let backend = test.backend(&server, 1);
    let error = test.client.send(&backend, || call_within("/", Duration::from_millis(300))).await.expect_err("no end");
    assert!(matches!(error, CallError::TimedOut { sent: true }), "{error:?}");
    eventually("the connection is gone", || backend.counts().open == 0).await;
}

#[tokio::test]
async fn a_body_of_exactly_the_maximum_is_an_answer() {
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde";
    let server = Server::start(move |mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let _ = stream.write_all(text).await;
        }
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 1);
    let exactly = test.client.send(&backend, || Call { answer_max_bytes: 5, ..call("/") }).await.expect("an answer");
    assert_eq!(exactly.body, Bytes::from_static(b"abcde"));
    let error = test.client.send(&backend, || Call { answer_max_bytes: 4, ..call("/") }).await.expect_err("too large");
    assert!(matches!(error, CallError::TooLarge { max: 4, .. }), "{error:?}");
}

#[tokio::test]
async fn an_early_answer_to_a_large_request_is_an_answer() {
    let server = Server::start(|mut stream| async move {
        // Answers without reading the body, and leaves the connection open.
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await;
        std::future::pending::<()>().await;
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 1);
    let body = Bytes::from(vec![0; 64 * 1024 * 1024]);
    let large = Call { body, ..call_within("/", Duration::from_millis(500)) };
    // The answer may cross with the request, or arrive before it: then hyper treats the connection as broken.
    if let Ok(answer) = test.client.send(&backend, || large.clone()).await {
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    eventually("the connection is gone", || backend.counts().open == 0).await;
}

#[tokio::test]
async fn the_host_header_is_the_authority_unless_given() {
    let server = Server::start(|mut stream| async move {
        let mut head = Vec::new();
        loop {
            if tokio::io::AsyncReadExt::read_buf(&mut stream, &mut head).await.unwrap_or(0) == 0 {
                return;
            }
            if head.ends_with(b"hello") {
                let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                let _ = stream.write_all(&[text.as_bytes(), &head].concat()).await;
                head.clear();
            }
        }
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 1);
    let head = test.text(&backend, "/path?query=1").await;
    assert!(head.starts_with("POST /path?query=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", server.address)), "{head}");
    let mut given = call("/");
    given.headers.insert(header::HOST, HeaderValue::from_static("given.example"));
    let answer = test.client.send(&backend, || given.clone()).await.expect("an answer");
    let head = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(head.contains("host: given.example\r\n") && !head.contains("127.0.0.1"), "{head}");
}
