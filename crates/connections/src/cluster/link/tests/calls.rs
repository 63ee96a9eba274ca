use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, duplex};

use super::support::{Counting, LEASE, TestNode, UNTRACED, eventually, post, send_frame};
use crate::cluster::link::frame::{COPY_MAX_BYTES, LinkFrame};
use crate::cluster::link::handle::{IN_FLIGHT_MAX, QUEUE_MAX_BYTES};
use crate::cluster::link::{Action, Link, PeerAnswer, PeerCall, PeerCallError, PeerOutcome};
use tidegate_core::data_type::DataType;
use tidegate_core::id::ConnectionId;

async fn call(link: &Arc<Link>, call: PeerCall) -> Result<PeerAnswer, PeerCallError> {
    link.call(call, LEASE).await
}

fn outcome(outcome: PeerOutcome) -> Result<PeerAnswer, PeerCallError> {
    Ok(PeerAnswer::Outcome(outcome))
}

#[tokio::test]
async fn each_call_gets_its_own_answer() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let link = a.link(&b).await;
    let back = b.links.linked(&a.id(), LEASE).await.unwrap();
    for (link, node) in [(&link, b.id()), (&back, a.id())] {
        assert_eq!(call(link, post(node, "hi")).await, outcome(PeerOutcome::Done));
        assert_eq!(call(link, post(node, "full")).await, outcome(PeerOutcome::Full));
        assert_eq!(call(link, post(node, "gone")).await, outcome(PeerOutcome::Gone));
        let connection = ConnectionId::random(node);
        let get = PeerCall { connection, api_id: "chat".into(), trace: UNTRACED, stages: None, action: Action::Get };
        assert_eq!(call(link, get).await, Ok(PeerAnswer::Info(format!("{connection} chat").into())));
        for (code, expected) in [(1000, PeerOutcome::Done), (3000, PeerOutcome::Gone)] {
            let action = Action::Delete { code, reason: "bye".into() };
            let delete = PeerCall { connection, api_id: "chat".into(), trace: UNTRACED, stages: None, action };
            assert_eq!(call(link, delete).await, outcome(expected));
        }
    }
}

#[tokio::test]
async fn ten_thousand_calls_arrive_in_their_order() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let link = a.link(&b).await;
    let mut calls: FuturesUnordered<_> =
        (0..10_000).map(|number| call(&link, post(b.id(), number.to_string()))).collect();
    while let Some(answer) = calls.next().await {
        assert_eq!(answer, outcome(PeerOutcome::Done));
    }
    let posts = b.connections.posts.lock().unwrap().clone();
    // FuturesUnordered polls the newest first; the test is about the order in which the owner saw the calls.
    assert_eq!(posts.len(), 10_000);
    let numbers: Vec<u32> = posts.iter().map(|data| std::str::from_utf8(data).unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted() || numbers.iter().rev().is_sorted());
    assert_eq!(link.load().in_flight, 0);
}

#[tokio::test]
async fn calls_that_wait_go_out_in_one_write_and_so_do_their_answers() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let (near, far) = duplex(1024 * 1024);
    let ((near, calls), (far, answers)) = (Counting::new(near), Counting::new(far));
    b.accept(far);
    a.dial(near, b.id()).await.unwrap();
    let link = a.links.get(&b.id()).unwrap();
    let before = (calls.load(Ordering::Relaxed), answers.load(Ordering::Relaxed));
    let all = (0..500).map(|_| call(&link, post(b.id(), "x")));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|answer| *answer == outcome(PeerOutcome::Done)));
    let writes = (calls.load(Ordering::Relaxed) - before.0, answers.load(Ordering::Relaxed) - before.1);
    assert!(writes.0 <= 2 && writes.1 <= 2, "{writes:?}");
}

#[tokio::test]
async fn bodies_of_any_size_arrive_whole() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let link = a.link(&b).await;
    let sizes = [0, 1, COPY_MAX_BYTES - 1, COPY_MAX_BYTES, COPY_MAX_BYTES + 1, 64 * 1024, 1_000_000, QUEUE_MAX_BYTES];
    let bodies: Vec<Bytes> = sizes.iter().map(|size| (0..*size).map(|i| i as u8).collect()).collect();
    let calls = bodies.iter().map(|body| call(&link, post(b.id(), body.clone())));
    let answers = futures_util::future::join_all(calls).await;
    // The last alone is as large as the queue, and is taken when nothing else waits.
    assert!(answers[..sizes.len() - 1].iter().all(|answer| *answer == outcome(PeerOutcome::Done)), "{answers:?}");
    assert_eq!(*answers.last().unwrap(), Err(PeerCallError::NotSent));
    assert_eq!(call(&link, post(b.id(), bodies.last().unwrap().clone())).await, outcome(PeerOutcome::Done));
    let posts = b.connections.posts.lock().unwrap().clone();
    assert!(posts.iter().eq(&bodies), "{:?}", posts.iter().map(Bytes::len).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_waits_until_the_frame_is_written() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let link = a.link(&b).await;
    for (written, expected) in [(true, PeerOutcome::Done), (false, PeerOutcome::Gone)] {
        let held = call(&link, post(b.id(), "hold"));
        let release = async {
            eventually("posted", || b.connections.count() > 0).await;
            assert_eq!(call(&link, post(b.id(), "others are not held up")).await, outcome(PeerOutcome::Done));
            b.connections.release(written);
        };
        assert_eq!(tokio::join!(held, release).0, outcome(expected));
        b.connections.posts.lock().unwrap().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_lost_says_what_has_left() {
    let a = TestNode::new();
    // The stream holds 4 KiB: the first call fits, the second is cut off in its middle, the third is not begun.
    let (mut stream, link) = a.scripted_peer(4096).await;
    let node = link.peer.node;
    let [first, second, third] = [100, 10_000, 100].map(|size| call(&link, post(node, vec![b'x'; size])));
    let cut = async {
        tokio::time::sleep(LEASE / 10).await;
        let mut first = vec![0; 4];
        stream.io.read_exact(&mut first).await.unwrap();
        drop(stream);
    };
    let (first, second, third, ()) = tokio::join!(biased; first, second, third, cut);
    assert_eq!(first, Err(PeerCallError::Unknown));
    assert_eq!(second, Err(PeerCallError::NotSent));
    assert_eq!(third, Err(PeerCallError::NotSent));
    assert_eq!(call(&link, post(node, "late")).await, Err(PeerCallError::NotSent));
    assert!(a.links.get(&node).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_over_is_unknown_if_it_left_and_withdrawn_if_not() {
    let a = TestNode::new();
    let (mut stream, link) = a.scripted_peer(1024).await;
    let node = link.peer.node;
    let within = LEASE / 10;
    assert_eq!(link.call(post(node, "left"), within).await, Err(PeerCallError::Unknown));
    // More than the stream and one batch of the driver hold.
    let blocking = link.call(post(node, vec![b'x'; 200_000]), within);
    let waiting = link.call(post(node, "not sent"), within);
    let (blocking, waiting) = tokio::join!(biased; blocking, waiting);
    assert_eq!((blocking, waiting), (Err(PeerCallError::Unknown), Err(PeerCallError::NotSent)));
    assert_eq!((link.load().in_flight, link.load().queued_bytes), (0, 0));
    // A withdrawn call never arrives, and the late answer to a call that was given up is ignored.
    stream.admit();
    let left = stream.receive().await.unwrap();
    let Ok(LinkFrame::Post { id, .. }) = LinkFrame::decode(&left) else { panic!() };
    let mut answers = bytes::BytesMut::new();
    crate::cluster::link::encode_answers(&[(id, PeerOutcome::Done), (999, PeerOutcome::Gone)], &mut answers);
    tokio::io::AsyncWriteExt::write_all(&mut stream.io, &answers).await.unwrap();
    let large = stream.receive().await.unwrap();
    assert!(matches!(LinkFrame::decode(&large), Ok(LinkFrame::Post { data, .. }) if data.len() == 200_000));
    let answered = link.call(post(node, "next"), within);
    let answer = async {
        let next = stream.receive().await.unwrap();
        let Ok(LinkFrame::Post { id, data, .. }) = LinkFrame::decode(&next) else { panic!("{next:?}") };
        assert_eq!(&data[..], b"next");
        let mut answers = bytes::BytesMut::new();
        crate::cluster::link::encode_answers(&[(id, PeerOutcome::Full)], &mut answers);
        tokio::io::AsyncWriteExt::write_all(&mut stream.io, &answers).await.unwrap();
    };
    assert_eq!(tokio::join!(answered, answer).0, outcome(PeerOutcome::Full));
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_bounded_on_both_sides() {
    let a = TestNode::new();
    let (stream, link) = a.scripted_peer(64 * 1024).await;
    let node = link.peer.node;
    let mut calls: FuturesUnordered<_> = (0..=IN_FLIGHT_MAX).map(|_| call(&link, post(node, "x"))).collect();
    assert_eq!(calls.next().await, Some(Err(PeerCallError::NotSent)), "one too many");
    drop(calls);
    assert_eq!(link.load().in_flight, 0);
    // A peer that sends more calls than it may is cut off.
    let connection = ConnectionId::random(a.id());
    let to = crate::cluster::link::Target { connection, api_id: "chat", trace: None, stages: None };
    let (mut reader, mut writer) = tokio::io::split(stream.io);
    a.tasks.spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.map(drop).unwrap_or(()) });
    let mut frames = bytes::BytesMut::new();
    for id in 0..=IN_FLIGHT_MAX as u64 {
        LinkFrame::Post { id, to, data_type: DataType::Text, data: Bytes::from_static(b"hold") }.encode(&mut frames);
    }
    tokio::io::AsyncWriteExt::write_all(&mut writer, &frames).await.unwrap();
    eventually("cut off", || a.links.get(&node).is_none()).await;
    assert_eq!(a.connections.count(), IN_FLIGHT_MAX);
}

#[tokio::test]
async fn a_frame_that_is_none_ends_the_link_and_nothing_behind_it_is_acted_on() {
    let a = TestNode::new();
    let (mut stream, link) = a.scripted_peer(4096).await;
    let to = crate::cluster::link::Target {
        connection: ConnectionId::random(a.id()),
        api_id: "chat",
        trace: None,
        stages: None,
    };
    send_frame(
        &mut stream,
        &LinkFrame::Post { id: 1, to, data_type: DataType::Text, data: Bytes::from_static(b"before") },
    )
    .await;
    let mut bytes = vec![0, 0, 0, 1, 99];
    let mut behind = bytes::BytesMut::new();
    LinkFrame::Post { id: 2, to, data_type: DataType::Text, data: Bytes::from_static(b"behind") }.encode(&mut behind);
    bytes.extend_from_slice(&behind);
    tokio::io::AsyncWriteExt::write_all(&mut stream.io, &bytes).await.unwrap();
    eventually("cut off", || a.links.get(&link.peer.node).is_none()).await;
    assert_eq!(*a.connections.posts.lock().unwrap(), ["before"]);
}
