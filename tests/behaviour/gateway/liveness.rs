//! Clients that are slow, and clients that are gone: the gateway tells one from the other.

use std::sync::Arc;
use std::time::Duration;

use tidegate_testing::{
    Authority, RawClient, Settings, TestBackend, TestGateway, connect_narrow, eventually, frame, handshake, spawn,
    within,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

const LOST: (u64, &str) = (1006, "Connection closed abnormally");

/// Bytes of one post of a backlog, and posts in it.
const POST_BYTES: usize = 100_000;
const POSTS: usize = 12;

/// Time between two pieces that a slow client reads or sends.
const PACE: Duration = Duration::from_millis(20);

/// A client that reads and sends at its own pace.
struct SlowClient<S> {
    stream: S,
    unread: Vec<u8>,
    id: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> SlowClient<S> {
    async fn enter(mut stream: S, gateway: &TestGateway, backend: &TestBackend) -> Self {
        within("a request", stream.write_all(&handshake(gateway.public(), "/prod", &[]))).await.unwrap();
        let mut unread = Vec::new();
        let head = loop {
            match unread.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break unread.drain(..end + 4).collect::<Vec<u8>>(),
                None => assert!(within("a 101", stream.read_buf(&mut unread)).await.unwrap() > 0),
            }
        };
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        let id = backend.next("CONNECT").await.connection_id().to_owned();
        SlowClient { stream, unread, id }
    }

    /// The next frame, of which so many bytes are read every 20 ms. It answers pings, which it only finds where they are.
    async fn next_frame(&mut self, pace: usize) -> (u8, Vec<u8>) {
        loop {
            if let Some((first, payload)) = self.take_frame() {
                match first {
                    0x89 => self.send(&frame(0x8a, &payload)).await,
                    0x8a => {}
                    _ => return (first, payload),
                }
                continue;
            }
            let mut piece = vec![0; pace];
            let count = within("bytes", self.stream.read(&mut piece)).await.expect("the connection is not reset");
            assert!(count > 0, "the connection ended");
            self.unread.extend(&piece[..count]);
            sleep(PACE).await;
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let unread = &self.unread;
        let (length, head) = match *unread.get(1)? {
            126 => (u64::from(u16::from_be_bytes(unread.get(2..4)?.try_into().unwrap())), 4),
            127 => (u64::from_be_bytes(unread.get(2..10)?.try_into().unwrap()), 10),
            small => (small.into(), 2),
        };
        let end = head + usize::try_from(length).unwrap();
        if unread.len() < end {
            return None;
        }
        let bytes: Vec<u8> = self.unread.drain(..end).collect();
        Some((bytes[0], bytes[head..].to_vec()))
    }

    async fn send(&mut self, bytes: &[u8]) {
        within("sending", async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
        .expect("sent");
    }

    /// Sends so many bytes at each step of its pace.
    async fn send_slowly(&mut self, bytes: &[u8], pace: usize) {
        for piece in bytes.chunks(pace) {
            self.send(piece).await;
            sleep(PACE).await;
        }
    }

    /// Reads a backlog, each post of its own letter.
    async fn read_backlog(&mut self, pace: usize) {
        for post in 0..POSTS {
            let (first, payload) = self.next_frame(pace).await;
            assert_eq!(first, 0x81);
            assert!(payload == letters(post), "post {post} came as it was sent");
        }
    }
}

fn letters(post: usize) -> Vec<u8> {
    vec![b'a' + u8::try_from(post).unwrap(); POST_BYTES]
}

/// Posts a backlog in its order. All of it may be in the kernel soon: then nothing waits in the gateway.
async fn post_backlog(gateway: &TestGateway, id: &str) {
    for post in 0..POSTS {
        assert_eq!(gateway.post(id, letters(post)).await.status, 200);
    }
}

/// A gateway whose clients are `wss:`, and how to connect to it.
async fn start_tls(settings: Settings) -> (TestGateway, TlsConnector) {
    let authority = Authority::new("test");
    let pair = authority.write_pair("chat", &authority.issue(&["chat.test"]));
    let settings = settings.public(format!("connectionsApi: NONE, tls: {{ certificates: [ {pair} ] }}"));
    (settings.start().await, TlsConnector::from(Arc::new(authority.client(None))))
}

async fn connect_tls(connector: &TlsConnector, stream: TcpStream) -> tokio_rustls::client::TlsStream<TcpStream> {
    let name = "chat.test".try_into().unwrap();
    within("a TLS handshake", connector.connect(name, stream)).await.unwrap()
}

fn pinging(backend: &TestBackend) -> Settings {
    Settings::aws_proxy(backend).section("keepAlive: { pingIntervalSeconds: 1, pongTimeoutSeconds: 2 }")
}

/// A client is behind with its reading for longer than a ping and its pong may take, and gets every byte.
async fn expect_to_stay(mut client: SlowClient<impl AsyncRead + AsyncWrite + Unpin>, gateway: &TestGateway) {
    let id = client.id.clone();
    tokio::join!(post_backlog(gateway, &id), client.read_backlog(4096));
    let last = async { assert_eq!(gateway.post(&id, "the last").await.status, 200) };
    let (read, ()) = tokio::join!(client.next_frame(4096), last);
    assert_eq!(read, (0x81, b"the last".to_vec()));
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_stays_and_gets_every_byte() {
    let backend = TestBackend::start().await;
    let gateway = pinging(&backend).start().await;
    let client = SlowClient::enter(connect_narrow(gateway.public()).await, &gateway, &backend).await;
    expect_to_stay(client, &gateway).await;
}

#[tokio::test]
async fn a_client_of_tls_that_reads_slowly_but_steadily_stays_and_gets_every_byte() {
    let backend = TestBackend::start().await;
    let (gateway, connector) = start_tls(pinging(&backend)).await;
    let stream = connect_tls(&connector, connect_narrow(gateway.public()).await).await;
    expect_to_stay(SlowClient::enter(stream, &gateway, &backend).await, &gateway).await;
}

#[tokio::test]
async fn a_client_that_sends_one_large_message_slowly_stays() {
    let backend = TestBackend::start().await;
    let gateway = pinging(&backend).start().await;
    let stream = TcpStream::connect(gateway.public()).await.unwrap();
    let mut client = SlowClient::enter(stream, &gateway, &backend).await;
    let message = vec![b'x'; 100_000];
    // Six seconds, in which it can send no pong.
    client.send_slowly(&frame(0x81, &message), 350).await;
    assert_eq!(backend.next("MESSAGE").await.event()["body"].as_str().unwrap().as_bytes(), message);
    assert!(backend.calls("DISCONNECT").is_empty());
}

#[tokio::test]
async fn a_client_of_tls_stays_while_one_record_comes_slowly() {
    let backend = TestBackend::start().await;
    let (gateway, connector) = start_tls(pinging(&backend)).await;
    // The records come through a narrow pipe. Of one that is not whole the gateway can read nothing.
    let (near, far) = tokio::io::duplex(64 * 1024);
    let link = TcpStream::connect(gateway.public()).await.unwrap();
    let (mut from_gateway, mut to_gateway) = link.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(far);
    spawn(async move { tokio::io::copy(&mut from_gateway, &mut to_client).await });
    spawn(async move {
        let mut piece = [0; 80];
        while let Ok(count @ 1..) = from_client.read(&mut piece).await {
            to_gateway.write_all(&piece[..count]).await?;
            sleep(PACE).await;
        }
        Ok::<_, std::io::Error>(())
    });
    let name = "chat.test".try_into().unwrap();
    let stream = within("a TLS handshake", connector.connect(name, near)).await.unwrap();
    let mut client = SlowClient::enter(stream, &gateway, &backend).await;
    let message = vec![b'x'; 30_000];
    client.send(&frame(0x81, &message)).await;
    assert_eq!(backend.next("MESSAGE").await.event()["body"].as_str().unwrap().as_bytes(), message);
    assert!(backend.calls("DISCONNECT").is_empty());
}

#[tokio::test]
async fn a_client_whose_socket_is_full_but_that_reads_slowly_is_no_slow_consumer() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { slowClientTimeoutSeconds: 2 }").start().await;
    let mut client = SlowClient::enter(connect_narrow(gateway.public()).await, &gateway, &backend).await;
    let id = client.id.clone();
    // The socket takes more again when a third of what it holds was read, which is some seconds from now.
    let mut posts = 0;
    let stuck = loop {
        let mut http = RawClient::connect(gateway.internal()).await;
        let head =
            format!("POST /prod/@connections/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {POST_BYTES}\r\n\r\n");
        http.send(&[head.as_bytes(), &letters(posts % POSTS)].concat()).await;
        let mut answer = spawn(async move { http.response().await.status });
        match tokio::time::timeout(Duration::from_millis(200), &mut answer).await {
            Ok(status) => assert_eq!(status.unwrap(), 200),
            Err(_) => break answer,
        }
        posts += 1;
    };
    let mut read = 0;
    while !stuck.is_finished() {
        assert_eq!(client.next_frame(4096).await, (0x81, letters(read % POSTS)), "post {read}");
        read += 1;
    }
    assert_eq!(within("the last answer", stuck).await.unwrap(), 200);
    assert!(backend.calls("DISCONNECT").is_empty());
}

#[tokio::test]
async fn a_client_that_has_stopped_is_dead_though_its_kernel_takes_what_is_posted() {
    let backend = TestBackend::start().await;
    let gateway = pinging(&backend).start().await;
    let stopped = RawClient::upgrade(gateway.public(), "/prod").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    let posting = eventually("the end of the posts", async || gateway.post(&id, "never read").await.status != 200);
    let (disconnect, ()) = tokio::join!(backend.next("DISCONNECT"), posting);
    assert_eq!(disconnect.closing(), (LOST.0, LOST.1.to_owned()));
    drop(stopped);
}

/// Makes a client vanish: its kernel hears nothing more, so it neither acknowledges nor says that it is gone.
#[cfg(target_os = "linux")]
fn cut(stream: &TcpStream) {
    const RETURN: u16 = 0x06;
    let nothing_passes = socket2::SockFilter::new(RETURN, 0, 0, 0);
    socket2::SockRef::from(stream).attach_filter(&[nothing_passes]).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_whose_network_is_cut_is_dead_even_in_the_middle_of_its_reading() {
    let backend = TestBackend::start().await;
    let gateway = pinging(&backend).start().await;
    let silent = SlowClient::enter(TcpStream::connect(gateway.public()).await.unwrap(), &gateway, &backend).await;
    cut(&silent.stream);
    assert_eq!(backend.next("DISCONNECT").await.closing(), (LOST.0, LOST.1.to_owned()));

    let mut reading = SlowClient::enter(connect_narrow(gateway.public()).await, &gateway, &backend).await;
    let id = reading.id.clone();
    let (_, ()) = tokio::join!(reading.next_frame(4096), post_backlog(&gateway, &id));
    cut(&reading.stream);
    let disconnect = backend.next("DISCONNECT").await;
    assert_eq!((disconnect.connection_id(), disconnect.closing()), (&*id, (LOST.0, LOST.1.to_owned())));
}

#[tokio::test]
async fn a_connection_is_not_idle_while_its_client_reads_what_was_posted() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).section("keepAlive: { pingIntervalSeconds: 0 }");
    let gateway = settings.section("limits: { idleTimeoutSeconds: 2, slowClientTimeoutSeconds: 2 }").start().await;
    let mut client = SlowClient::enter(connect_narrow(gateway.public()).await, &gateway, &backend).await;
    let id = client.id.clone();
    tokio::join!(post_backlog(&gateway, &id), client.read_backlog(4096));
    assert_eq!(gateway.post(&id, "the last").await.status, 200, "it was not idle");
    assert_eq!(client.next_frame(4096).await, (0x81, b"the last".to_vec()));
    assert_eq!(client.next_frame(4096).await, (0x88, b"\x03\xe9Going away".to_vec()));
}

#[tokio::test]
async fn a_connection_is_not_idle_while_its_client_sends_a_message() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend).section("keepAlive: { pingIntervalSeconds: 0 }");
    let gateway = settings.section("limits: { idleTimeoutSeconds: 2, slowClientTimeoutSeconds: 2 }").start().await;
    let stream = TcpStream::connect(gateway.public()).await.unwrap();
    let mut client = SlowClient::enter(stream, &gateway, &backend).await;
    let message = vec![b'x'; 100_000];
    client.send_slowly(&frame(0x81, &message), 350).await;
    assert_eq!(backend.next("MESSAGE").await.event()["body"].as_str().unwrap().as_bytes(), message);

    // It stops half-way, and keeps nothing open by that.
    client.send(&frame(0x81, &message)[..50_000]).await;
    assert_eq!(backend.next("DISCONNECT").await.closing(), (1001, "Going away".to_owned()));
}

#[tokio::test]
async fn a_client_that_is_behind_gets_its_close_frame_after_all_that_was_posted() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = SlowClient::enter(connect_narrow(gateway.public()).await, &gateway, &backend).await;
    let id = client.id.clone();
    let posting = async {
        post_backlog(&gateway, &id).await;
        assert_eq!(gateway.call("DELETE", &id, b"").await.status, 204);
    };
    let reading = async {
        for post in 0..POSTS {
            assert_eq!(client.next_frame(4096).await, (0x81, letters(post)), "post {post}");
            // It does not know yet that nobody answers. A closed socket would be reset by this.
            client.send(&frame(0x89, b"there?")).await;
        }
        let (first, reason) = client.next_frame(4096).await;
        assert_eq!((first, &reason[2..]), (0x88, &b"Connection Closed Normally"[..]));
    };
    tokio::join!(posting, reading);
}

#[tokio::test]
async fn a_client_that_talks_on_after_its_close_frame_is_cut_off() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    assert_eq!(gateway.call("DELETE", &id, b"").await.status, 204);
    assert_eq!(client.next_close().await.0, 1000);
    eventually("it is cut off", async || client.stream.write_all(&frame(0x81, b"hello?")).await.is_err()).await;
}
