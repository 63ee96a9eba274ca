//! Ends of connections: what the clients get, and what `$disconnect` says.

use std::time::Duration;

use tidegate_testing::{Gate, RawClient, Reply, Settings, TestBackend, eventually, frame, spawn, within};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn the_clients_own_code_and_reason_are_echoed_and_reported() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let longest = "r".repeat(123);
    for (sent, code, reason) in [
        (Some((1000, "bye")), 1000_u64, "bye"),
        (Some((1000, "")), 1000, ""),
        (Some((1001, "")), 1001, ""),
        (Some((4000, "a b %\u{e9}")), 4000, "a b %\u{e9}"),
        (Some((3000, &*longest)), 3000, &*longest),
        (None, 1005, "Client-side close frame status not set"),
    ] {
        let (client, id) = gateway.client(&backend).await;
        let echoed = client.close(sent).await;
        assert_eq!(echoed, sent.map_or((1005, String::new()), |(code, reason)| (code, reason.to_owned())));
        let disconnect = backend.next("DISCONNECT").await;
        assert_eq!(disconnect.connection_id(), id);
        assert_eq!(disconnect.closing(), (code, reason.to_owned()));
        assert_eq!(gateway.post(&id, "x").await.status, 410);
    }
}

#[tokio::test]
async fn a_client_that_drops_its_connection_is_lost() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let reset = RawClient::upgrade(gateway.public(), "/prod").await;
    backend.next("CONNECT").await;
    reset.reset();
    let lost = (1006, "Connection closed abnormally".to_owned());
    assert_eq!(backend.next("DISCONNECT").await.closing(), lost);

    let ended = RawClient::upgrade(gateway.public(), "/prod").await;
    drop(ended);
    assert_eq!(backend.next("DISCONNECT").await.closing(), lost);

    let mut midway = RawClient::upgrade(gateway.public(), "/prod").await;
    midway.send(&frame(0x81, b"hello")[..5]).await;
    drop(midway);
    assert_eq!(backend.next("DISCONNECT").await.closing(), lost);
    gateway.expect_alive(&backend).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_though_it_was_looked_at() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { idleTimeoutSeconds: 1 }").start().await;
    let (mut client, id) = gateway.client(&backend).await;
    let looking = eventually("nobody finds it", async || gateway.call("GET", &id, b"").await.status != 200);
    let (closing, ()) = tokio::join!(client.next_close(), looking);
    assert_eq!(closing, (1001, "Going away".to_owned()));
    assert_eq!(backend.next("DISCONNECT").await.closing(), (1001, "Going away".to_owned()));
}

#[tokio::test]
async fn posts_and_messages_keep_an_idle_connection() {
    // The connections would be closed after 1 s.
    const LONGER_THAN_IDLE: Duration = Duration::from_millis(1800);
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { idleTimeoutSeconds: 1 }").start().await;
    let (mut posted, id) = gateway.client(&backend).await;
    let (mut talking, _) = gateway.client(&backend).await;
    let start = tokio::time::Instant::now();
    while start.elapsed() < LONGER_THAN_IDLE {
        assert_eq!(gateway.post(&id, "").await.status, 200);
        assert_eq!(posted.next_text().await, "");
        talking.send(r#"{"action":"tell"}"#).await;
        backend.next("MESSAGE").await;
    }
    assert_eq!(posted.next_close().await, (1001, "Going away".to_owned()));
    assert_eq!(talking.next_close().await, (1001, "Going away".to_owned()));
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_closed_though_it_is_busy() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { connectionDurationSeconds: 1 }").start().await;
    let (mut client, id) = gateway.client(&backend).await;
    while gateway.post(&id, "x").await.status == 200 {
        assert_eq!(client.next_text().await, "x");
    }
    assert_eq!(client.next_close().await, (1001, "Going away".to_owned()));
    assert_eq!(backend.next("DISCONNECT").await.closing(), (1001, "Going away".to_owned()));
}

#[tokio::test]
async fn the_gateway_pings_and_a_client_that_answers_stays() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let gateway = settings.section("keepAlive: { pingIntervalSeconds: 1, pongTimeoutSeconds: 1 }").start().await;
    let (mut client, id) = gateway.client(&backend).await;
    for _ in 0..3 {
        assert!(matches!(client.next_message().await, Message::Ping(_)));
    }
    assert_eq!(gateway.post(&id, "x").await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_dead() {
    let backend = TestBackend::start().await;
    let settings = Settings::aws_proxy(&backend);
    let gateway = settings.section("keepAlive: { pingIntervalSeconds: 1, pongTimeoutSeconds: 1 }").start().await;
    let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
    assert_eq!(client.next_frame().await.unwrap().first, 0x89);
    let disconnect = backend.next("DISCONNECT").await;
    assert_eq!(disconnect.closing(), (1006, "Connection closed abnormally".to_owned()));
    while let Some(frame) = client.next_frame().await {
        assert_eq!(frame.first, 0x89, "1006 is never sent");
    }
}

#[tokio::test]
async fn a_client_whose_messages_wait_for_the_backend_is_not_dead() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend)
        .section("keepAlive: { pingIntervalSeconds: 1, pongTimeoutSeconds: 1 }")
        .section("limits: { concurrentDispatches: 1 }")
        .start()
        .await;
    let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
    let gate = Gate::default();
    backend.answer("MESSAGE", Reply::body("at last").held(&gate));
    client.send(&frame(0x81, br#"{"action":"ask"}"#)).await;
    // Its answers are not read, so they are not missed.
    for _ in 0..4 {
        assert_eq!(client.next_frame().await.unwrap().first, 0x89);
        client.send(&frame(0x8a, b"")).await;
    }
    gate.open();
    let reply = loop {
        let frame = client.next_frame().await.unwrap();
        if frame.first != 0x89 {
            break frame;
        }
    };
    assert_eq!((reply.first, &*reply.payload), (0x81, &b"at last"[..]));
}

#[tokio::test]
async fn a_clients_ping_is_answered_with_its_own_payload() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
    for payload in [&b""[..], b"hello", &[0xff; 125]] {
        client.send(&frame(0x89, payload)).await;
        let pong = client.next_frame().await.unwrap();
        assert_eq!((pong.first, &*pong.payload), (0x8a, payload));
    }
    client.send(&frame(0x8a, b"nobody asked")).await;
    client.send(&frame(0x89, b"again")).await;
    assert_eq!(client.next_frame().await.unwrap().payload, b"again");
}

#[tokio::test]
async fn what_rfc_6455_forbids_ends_the_connection_that_does_it() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let protocol_error = (1002, "Protocol error");
    let not_utf8 = (1007, "Invalid UTF-8");
    let unmasked = [&[0x81, 5][..], b"hello"].concat();
    for (what, bytes, (code, reason)) in [
        ("an unmasked frame", unmasked, protocol_error),
        ("reserved bit 1", frame(0xc1, b"x"), protocol_error),
        ("reserved bit 2", frame(0xa1, b"x"), protocol_error),
        ("reserved bit 3", frame(0x91, b"x"), protocol_error),
        ("an unknown data opcode", frame(0x83, b"x"), protocol_error),
        ("an unknown control opcode", frame(0x8b, b"x"), protocol_error),
        ("a fragmented ping", frame(0x09, b"x"), protocol_error),
        ("a fragmented close", frame(0x08, b"\x03\xe8"), protocol_error),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), protocol_error),
        ("a continuation of nothing", frame(0x80, b"x"), protocol_error),
        ("a message within a message", [frame(0x01, b"x"), frame(0x81, b"y")].concat(), protocol_error),
        ("a close frame of one byte", frame(0x88, b"\x03"), protocol_error),
        ("text that is not UTF-8", frame(0x81, b"\xff\xfe"), not_utf8),
        ("half a character at the end", frame(0x81, b"a\xc3"), not_utf8),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80"), not_utf8),
        ("bad text in fragments", [frame(0x01, b"a\xc3"), frame(0x80, b"a")].concat(), not_utf8),
        ("a close reason that is not UTF-8", frame(0x88, b"\x03\xe8\xff"), not_utf8),
    ] {
        let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
        let id = backend.next("CONNECT").await.connection_id().to_owned();
        client.send(&bytes).await;
        assert_eq!(client.next_close().await, (code, reason.to_owned()), "{what}");
        client.send(&frame(0x88, &code.to_be_bytes())).await;
        assert_eq!(client.next_frame().await, None, "{what}");
        let disconnect = backend.next("DISCONNECT").await;
        assert_eq!(disconnect.connection_id(), id, "{what}");
        assert_eq!(disconnect.closing(), (code.into(), reason.to_owned()), "{what}");
    }
    assert!(backend.calls("MESSAGE").is_empty());
    gateway.expect_alive(&backend).await;
}

#[tokio::test]
async fn a_close_code_that_nobody_may_send_is_a_protocol_error() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
        client.send(&frame(0x88, &code.to_be_bytes())).await;
        assert_eq!(client.next_close().await.0, 1002, "{code}");
        assert_eq!(backend.next("DISCONNECT").await.closing().0, 1002, "{code}");
    }
}

#[tokio::test]
async fn a_message_or_a_frame_over_its_limit_is_too_big() {
    let backend = TestBackend::start().await;
    let too_big = (1009, "Message too big".to_owned());
    let quarter = vec![b'x'; 32_768];
    let (larger, largest) = (vec![b'x'; 131_073], vec![b'x'; 131_072]);
    for (limits, bytes) in [
        ("", frame(0x81, &larger)),
        ("", frame(0x82, &larger)),
        ("", [frame(0x01, &largest), frame(0x80, b"x")].concat()),
        ("limits: { frameBytes: 32768 }", frame(0x81, &vec![b'x'; 32_769])),
        ("limits: { frameBytes: 32768 }", [frame(0x01, &quarter), frame(0x00, &vec![b'x'; 32_769])].concat()),
        ("limits: { messageBytes: 10 }", frame(0x81, &[b'x'; 11])),
        // A length is believed only as far as it is allowed.
        ("", [&[0x81, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat()),
        ("", [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat()),
    ] {
        let gateway = Settings::aws_proxy(&backend).section(limits).start().await;
        let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
        backend.next("CONNECT").await;
        client.send(&bytes).await;
        assert_eq!(client.next_close().await, too_big);
        assert_eq!(backend.next("DISCONNECT").await.closing(), (1009, "Message too big".to_owned()));
    }
    assert!(backend.calls("MESSAGE").is_empty());
}

#[tokio::test]
async fn a_client_that_is_still_sending_reads_why_it_was_closed() {
    use tokio::io::AsyncWriteExt as _;

    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    for size in [131_073, 1_000_000, 3_000_000] {
        let client = RawClient::upgrade(gateway.public(), "/prod").await;
        let (reading, mut writing) = client.stream.into_split();
        let bytes = frame(0x81, &vec![b'x'; size]);
        let sending = spawn(async move {
            let sent = writing.write_all(&bytes).await;
            (sent, writing)
        });
        let (sent, writing) = within("sending", sending).await.unwrap();
        sent.expect("the connection is not reset");
        let mut client = RawClient::of(reading.reunite(writing).unwrap());
        assert_eq!(client.next_close().await, (1009, "Message too big".to_owned()), "{size}");
        client.send(&frame(0x88, b"\x03\xf1")).await;
        assert_eq!(client.next_frame().await, None);
    }
}

#[tokio::test]
async fn a_client_that_ignores_its_close_frame_is_cut_off() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
    let id = backend.next("CONNECT").await.connection_id().to_owned();
    assert_eq!(gateway.call("DELETE", &id, b"").await.status, 204);
    assert_eq!(client.next_close().await.0, 1000);
    backend.next("DISCONNECT").await;
    // It neither answers nor closes.
    assert_eq!(client.next_frame().await, None);
}

#[tokio::test]
async fn a_reply_that_comes_after_the_end_is_dropped_and_the_disconnect_comes_last() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).start().await;
    let (mut client, id) = gateway.client(&backend).await;
    let gate = Gate::default();
    for _ in 0..3 {
        backend.answer("MESSAGE", Reply::body("late").held(&gate));
        client.send(r#"{"action":"ask"}"#).await;
        backend.next("MESSAGE").await;
    }
    assert_eq!(client.close(Some((1000, "bye"))).await, (1000, "bye".to_owned()), "closing does not wait");
    assert_eq!(gateway.post(&id, "x").await.status, 410);
    assert!(backend.calls("DISCONNECT").is_empty());
    gate.open();
    backend.next("DISCONNECT").await;
    assert_eq!(backend.order(), ["CONNECT", "MESSAGE", "MESSAGE", "MESSAGE", "DISCONNECT"]);
}

#[tokio::test]
async fn messages_sent_right_before_the_close_frame_reach_the_backend_first() {
    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { concurrentDispatches: 1 }").start().await;
    let mut client = RawClient::upgrade(gateway.public(), "/prod").await;
    let messages: Vec<u8> = (0..20).flat_map(|number| frame(0x81, number.to_string().as_bytes())).collect();
    client.send(&[messages, frame(0x88, b"\x03\xe8")].concat()).await;
    drop(client);
    backend.next("DISCONNECT").await;
    let bodies: Vec<_> = backend.calls("MESSAGE").iter().map(|call| call.event()["body"].clone()).collect();
    assert_eq!(bodies, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(backend.order().last().unwrap(), "DISCONNECT");
}

#[tokio::test]
async fn a_flood_of_pings_from_a_client_that_does_not_read_ends_that_client_alone() {
    use tokio::io::AsyncWriteExt as _;

    let backend = TestBackend::start().await;
    let gateway = Settings::aws_proxy(&backend).section("limits: { slowClientTimeoutSeconds: 1 }").start().await;
    let mut flooding = RawClient::upgrade(gateway.public(), "/prod").await;
    let many = frame(0x89, &[7; 125]).repeat(1000);
    let flood = spawn(async move { while flooding.stream.write_all(&many).await.is_ok() {} });
    assert_eq!(backend.next("DISCONNECT").await.closing(), (1008, "Slow consumer".to_owned()));
    within("the end of the flood", flood).await.unwrap();
    gateway.expect_alive(&backend).await;
}
