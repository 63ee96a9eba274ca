use std::time::Duration;

use tidegate_testing::{Authority, Settings, TestBackend, TestClient, connect_from, eventually, raw_on, spawn, within};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::shield::handshake;

/// Clients that chat while something happens.
const CHATTING: usize = 100;

/// Pause of a client between two messages.
const PAUSE: Duration = Duration::from_millis(50);

/// Starts clients that send a message after each pause from an address of their own; their latencies, when told to stop.
async fn chat(address: std::net::SocketAddr, until: tokio_util::sync::CancellationToken) -> Vec<Duration> {
    let mut chats = Vec::new();
    for number in 0..CHATTING {
        let stream = connect_from("127.0.0.9", address).await.unwrap();
        let mut client = TestClient::on(stream, &format!("ws://{address}/prod"), &[]).await.unwrap();
        let until = until.clone();
        chats.push(spawn(async move {
            let mut latencies = Vec::new();
            while !until.is_cancelled() {
                let began = Instant::now();
                client.echo(&format!("{number}: {}", latencies.len())).await;
                latencies.push(began.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            latencies
        }));
    }
    let mut all = Vec::new();
    for chat in chats {
        all.extend(chat.await.unwrap());
    }
    all
}

fn report(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!("{what}: {} messages, all answered; p50 {:?}, p99 {:?}", latencies.len(), at(50), at(99));
    assert!(at(99) < Duration::from_secs(2), "p99 {:?}", at(99));
}

const LIMITS: &str = "limits: { handshakeTimeoutSeconds: 3, perAddress: { connections: 1000, handshakesInFlight: 50, \
                      connectsPerSecond: 200 } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_of_several_addresses_disturb_nobody() {
    let backend = TestBackend::start().await.echoing();
    // However slowly this machine connects: the places of five addresses are taken long before the first is free again.
    let limits = "limits: { handshakeTimeoutSeconds: 20, perAddress: { connections: 1000, handshakesInFlight: 20 } }";
    let gateway = Settings::aws_proxy(&backend).section(limits).start().await;
    let address = gateway.public();
    let stop = tokio_util::sync::CancellationToken::new();
    let chatting = spawn(chat(address, stop.clone()));
    eventually("the chat", async || backend.calls("MESSAGE").len() > CHATTING).await;
    let refused = "tidegate_throttled_total{api_id=\"-\",stage=\"-\",level=\"handshakes\"}";
    let mut half_open = Vec::new();
    eventually("a thousand refusals", async || {
        for number in 0..250 {
            if let Ok(mut stream) = connect_from(&format!("127.0.0.{}", 20 + number % 5), address).await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /prod HT").await;
                half_open.push(stream);
            }
        }
        gateway.metric(refused).await >= 1000
    })
    .await;
    // All of them are gone when the handshake timeout is over.
    for stream in &mut half_open {
        let ended = within("the end of the handshake", stream.read(&mut [0; 16])).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    stop.cancel();
    report(&format!("{} half-open handshakes", half_open.len()), chatting.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_connects_from_one_address_disturbs_nobody() {
    let backend = TestBackend::start().await.echoing();
    let gateway = Settings::aws_proxy(&backend).section(LIMITS).start().await;
    let address = gateway.public();
    let stop = tokio_util::sync::CancellationToken::new();
    let chatting = spawn(chat(address, stop.clone()));
    eventually("the chat", async || backend.calls("MESSAGE").len() > CHATTING).await;
    let mut workers = Vec::new();
    for _ in 0..40 {
        workers.push(spawn(async move {
            let (mut accepted, mut throttled, mut closed) = (0, 0, 0);
            for _ in 0..250 {
                let Ok(mut stream) = connect_from("127.0.0.30", address).await else {
                    closed += 1;
                    continue;
                };
                match raw_on(&mut stream, &handshake("a", "")).await {
                    answer if answer.starts_with("HTTP/1.1 101") => accepted += 1,
                    answer if answer.starts_with("HTTP/1.1 429") => {
                        let lower = answer.to_ascii_lowercase();
                        assert!(lower.contains("retry-after: 1") && answer.contains("Too Many Requests"), "{answer}");
                        throttled += 1;
                    }
                    _ => closed += 1,
                }
            }
            (accepted, throttled, closed)
        }));
    }
    let began = Instant::now();
    let (mut accepted, mut throttled, mut closed) = (0, 0, 0);
    for worker in workers {
        let (a, t, c) = worker.await.unwrap();
        (accepted, throttled, closed) = (accepted + a, throttled + t, closed + c);
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    println!("10000 connects in {seconds} s: {accepted} accepted, {throttled} throttled, {closed} closed");
    assert_eq!(accepted + throttled + closed, 10_000);
    assert!(accepted >= 100 && accepted <= 200 * (seconds + 1), "{accepted} in {seconds} s");
    stop.cancel();
    report("10000 connects from one address", chatting.await.unwrap());
}

#[tokio::test]
async fn one_connection_more_than_an_address_may_have_is_told_so() {
    let backend = TestBackend::start().await.echoing();
    let top = "limits: { perAddress: { connections: 2, handshakesInFlight: 5 } }".to_owned();
    let gateway = Settings::aws_proxy(&backend).section(top).start().await;
    let address = gateway.public();
    let (mut first, second) = (TestClient::enter(address).await, TestClient::enter(address).await);
    let mut third = TcpStream::connect(address).await.unwrap();
    let answer = raw_on(&mut third, &handshake("a", "")).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.to_ascii_lowercase().contains("retry-after: 1"), "{answer}");
    let mut elsewhere = connect_from("127.0.0.2", address).await.unwrap();
    assert!(raw_on(&mut elsewhere, &handshake("a", "")).await.starts_with("HTTP/1.1 101"));
    drop((second, third));
    eventually("a free place", async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        raw_on(&mut stream, &handshake("a", "")).await.starts_with("HTTP/1.1 101")
    })
    .await;
    first.echo("still here").await;
}

#[tokio::test]
async fn a_flooding_connection_is_told_and_stays_while_others_are_served() {
    let backend = TestBackend::start().await.echoing();
    let top = "limits: { perConnection: { messagesPerSecond: 1, messageBurst: 5 } }".to_owned();
    let gateway = Settings::aws_proxy(&backend).section(top).start().await;
    let (mut flooding, mut quiet) =
        (TestClient::enter(gateway.public()).await, TestClient::enter(gateway.public()).await);
    for number in 0..20 {
        flooding.send(&format!("m{number}")).await;
    }
    let mut throttled = 0;
    for _ in 0..20 {
        let text = flooding.next_text().await;
        if !text.starts_with('m') {
            assert!(text.starts_with("{\"message\": \"Too Many Requests\", \"connectionId\":\""), "{text}");
            throttled += 1;
        }
    }
    assert!((14..=15).contains(&throttled), "{throttled}");
    quiet.echo("hello").await;
    let name = "tidegate_throttled_total{api_id=\"chat\",stage=\"prod\",level=\"connection\"}";
    assert!(gateway.metric(name).await >= 14);
}

#[tokio::test]
async fn the_accounts_bucket_is_for_connects_messages_and_callbacks() {
    let backend = TestBackend::start().await.echoing();
    let top = "throttle: { rateLimit: 0.001, burstLimit: 2 }".to_owned();
    let gateway = Settings::aws_proxy(&backend).section(top).start().await;
    let address = gateway.public();
    let mut client = TestClient::enter(address).await;
    client.echo("hello").await;
    client.send("again").await;
    assert!(client.next_text().await.contains("Too Many Requests"));
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(raw_on(&mut stream, &handshake("a", "")).await.starts_with("HTTP/1.1 429"));
    let id = backend.last("CONNECT").await.context()["connectionId"].as_str().unwrap().to_owned();
    let post = format!("POST /prod/@connections/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi");
    let answer = tidegate_testing::raw(address, post.as_bytes()).await;
    let lower = answer.to_ascii_lowercase();
    assert!(
        answer.starts_with("HTTP/1.1 429") && lower.contains("x-amzn-errortype: limitexceededexception"),
        "{answer}"
    );
}

#[tokio::test]
async fn tls_handshakes_that_stall_are_counted_too() {
    let authority = Authority::new("test");
    let backend = TestBackend::start().await.echoing();
    let pair = authority.write_pair("it", &authority.issue(&["chat.test"]));
    let settings = Settings::aws_proxy(&backend)
        .public(format!("tls: {{ certificates: [ {pair} ] }}"))
        .section("limits: { perAddress: { handshakesInFlight: 3 } }");
    let gateway = settings.start().await;
    let address = gateway.public();
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(connect_from("127.0.0.5", address).await.unwrap());
    }
    let refused = "tidegate_throttled_total{api_id=\"-\",stage=\"-\",level=\"handshakes\"}";
    eventually("a refusal", async || {
        let _ = connect_from("127.0.0.5", address).await.unwrap().read(&mut [0; 1]).await;
        gateway.metric(refused).await >= 1
    })
    .await;
    let stream = tidegate_testing::connect_tls(address, authority.client(None), "chat.test").await.unwrap();
    TestClient::on(stream, &format!("ws://{address}/prod"), &[]).await.unwrap().echo("hello").await;
}
