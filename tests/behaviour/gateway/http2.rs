//! Requests over HTTP/2 that a backend has not processed, or may have.

use tidegate_testing::{Impostor, Relay, Reply, Settings, TestBackend};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TWO_WAY: &str = "$default: { target: integrations/backend, routeResponseSelectionExpression: $default }";

const HTTP2_DATA: u8 = 0;
const HTTP2_HEADERS: u8 = 1;
const HTTP2_RST_STREAM: u8 = 3;
const HTTP2_SETTINGS: u8 = 4;
const HTTP2_GOAWAY: u8 = 7;

fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Speaks HTTP/2 until a request is there whole, then says `answer` of its stream; and closes, or waits for the other
/// side to.
async fn http2_impostor(mut stream: TcpStream, closes: bool, answer: impl Fn(u32) -> Vec<u8>) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let _ = stream.write_all(&http2_frame(HTTP2_SETTINGS, 0, 0, &[])).await;
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags, number) = (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        let mut payload = vec![0; length.try_into().unwrap()];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        if kind == HTTP2_SETTINGS && flags == 0 {
            let _ = stream.write_all(&http2_frame(HTTP2_SETTINGS, 1, 0, &[])).await;
        }
        // The flag says that the request ends here.
        if [HTTP2_DATA, HTTP2_HEADERS].contains(&kind) && flags & 1 != 0 {
            let _ = stream.write_all(&answer(number)).await;
            if closes {
                return;
            }
        }
    }
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    http2_frame(HTTP2_RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> Vec<u8> {
    http2_frame(HTTP2_GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Codes of RFC 9113, section 7.
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Ways in which a backend says that it has not processed a request.
const NOT_PROCESSED: [Impostor; 4] = [
    |stream| Box::pin(http2_impostor(stream, false, |number| reset(number, REFUSED_STREAM))),
    |stream| Box::pin(http2_impostor(stream, false, |_| go_away(0, NO_ERROR))),
    |stream| Box::pin(http2_impostor(stream, true, |_| go_away(0, NO_ERROR))),
    |stream| Box::pin(http2_impostor(stream, true, |_| go_away(0, ENHANCE_YOUR_CALM))),
];

#[tokio::test]
async fn a_request_that_was_surely_not_processed_is_sent_again_once() {
    for (number, impostor) in NOT_PROCESSED.into_iter().enumerate() {
        for times in [1, 2] {
            let backend = TestBackend::start_http2().await;
            backend.answer_with(|_| Reply::body("reply"));
            let relay = Relay::start(&backend, times, impostor).await;
            let settings = Settings::of(&relay.url(), "AWS_PROXY").integration("http2: true").routes(TWO_WAY);
            let gateway = settings.start().await;
            let mut client = gateway.connect("/prod").await;
            client.send("x").await;
            let frame = client.next_text().await;
            if times == 1 {
                assert_eq!(frame, "reply", "{number}");
            } else {
                assert!(frame.contains("Internal server error"), "{number}: {frame}");
                client.send("x").await;
                assert_eq!(client.next_text().await, "reply", "{number}: the next message is served");
            }
            let call = backend.next("MESSAGE").await;
            assert_eq!(call.header("x-tidegate-attempt"), "1", "{number}");
            assert_eq!((backend.calls("MESSAGE").len(), relay.connections()), (1, times + 1), "{number}");
        }
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_sent_again() {
    let may_be_processed: [Impostor; 5] = [
        |stream| Box::pin(http2_impostor(stream, false, |number| reset(number, INTERNAL_ERROR))),
        |stream| Box::pin(http2_impostor(stream, false, |number| reset(number, CANCEL))),
        |stream| Box::pin(http2_impostor(stream, true, |number| go_away(number, NO_ERROR))),
        |stream| Box::pin(http2_impostor(stream, true, |number| go_away(number, INTERNAL_ERROR))),
        |stream| Box::pin(http2_impostor(stream, true, |_| Vec::new())),
    ];
    for (number, impostor) in may_be_processed.into_iter().enumerate() {
        let backend = TestBackend::start_http2().await;
        backend.answer_with(|_| Reply::body("reply"));
        let relay = Relay::start(&backend, 1, impostor).await;
        let settings = Settings::of(&relay.url(), "AWS_PROXY").integration("http2: true").routes(TWO_WAY);
        let gateway = settings.start().await;
        let mut client = gateway.connect("/prod").await;
        client.send("x").await;
        assert_eq!(client.next_json().await["message"], "Internal server error", "{number}");
        assert_eq!(backend.calls("MESSAGE").len(), 0, "{number}");
    }
}

#[tokio::test]
async fn a_connect_that_was_surely_not_processed_has_no_disconnect() {
    for impostor in NOT_PROCESSED {
        let backend = TestBackend::start_http2().await;
        let relay = Relay::start(&backend, 2, impostor).await;
        let gateway = Settings::of(&relay.url(), "AWS_PROXY").integration("http2: true").start().await;
        assert_eq!(gateway.handshake("/prod", &[]).await.status, 502);
        gateway.settled().await;
        let (client, id) = gateway.client(&backend).await;
        client.close(Some((1000, ""))).await;
        assert_eq!(backend.next("DISCONNECT").await.connection_id(), id);
        assert_eq!(backend.order(), ["CONNECT", "DISCONNECT"]);
    }
}
