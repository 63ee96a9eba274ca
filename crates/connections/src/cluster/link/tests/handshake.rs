use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::timeout;

use super::support::{LEASE, SECRET, TestNode, eventually, record_handshake};
use crate::cluster::link::frame_stream::FrameStream;
use crate::cluster::link::handshake::Hello;
use crate::cluster::link::handshake_io::HandshakeError;
use crate::cluster::link::{PROTOCOL, PeerLink, Refusal};
use crate::cluster::{ClusterMember, NodeTable};
use crate::redis_client::NodeKey;
use tidegate_core::id::NodeId;

fn has_no_link(node: &TestNode) -> bool {
    node.links.peers().iter().all(|peer| !matches!(peer.link, PeerLink::Linked { .. }))
}

#[tokio::test]
async fn two_nodes_with_the_secret_are_linked() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let link = a.link(&b).await;
    assert_eq!((link.peer.node, link.protocol, link.dialled), (b.id(), PROTOCOL.1, true));
    eventually("linked", || b.links.get(&a.id()).is_some_and(|link| !link.dialled)).await;
    let peers = b.links.peers();
    assert_eq!((peers.len(), peers[0].node, &*peers[0].advertise), (1, a.id(), "127.0.0.1:1"));
}

#[tokio::test]
async fn a_peer_of_an_earlier_version_is_told_no_stages() {
    for (protocol, knows) in [((1, 1), false), ((1, 2), false), (PROTOCOL, true)] {
        let (a, b) = (TestNode::new(), TestNode::with(NodeId::random(), SECRET, protocol));
        let link = a.link(&b).await;
        assert_eq!((link.protocol, link.knows_stages()), (protocol.1, knows));
    }
}

#[tokio::test]
async fn without_the_secret_nobody_is_linked() {
    let (a, b) = (TestNode::new(), TestNode::with(NodeId::random(), "another secret!!", PROTOCOL));
    let (near, far) = duplex(4096);
    b.accept(far);
    let error = a.dial(near, b.id()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Refused(Refusal::Secret)), "{error:?}");
    assert_eq!(b.refusals(Refusal::Secret), 1);
    assert!(has_no_link(&a) && has_no_link(&b));
}

#[tokio::test]
async fn an_acceptor_without_the_secret_gets_no_link_either() {
    let a = TestNode::new();
    let impostor = TestNode::new();
    let (near, far) = duplex(4096);
    let impostor_id = impostor.id();
    impostor.tasks.spawn(async move {
        // Accepts any proof and answers with 32 bytes of its own.
        let mut stream = FrameStream::new(far);
        let hello = stream.receive().await.unwrap();
        let introduction =
            crate::cluster::link::Introduction { node: impostor_id, advertise: String::new(), version: String::new() };
        let challenge =
            crate::cluster::link::handshake::Challenge { protocol: 1, nonce: [0; 32], from: introduction }.encode();
        stream.send(&challenge).await.unwrap();
        let proof = stream.receive().await.unwrap();
        let mut reflected = BytesMut::from(&proof[..]);
        reflected[0] = b'W';
        stream.send(&reflected.freeze()).await.unwrap();
        drop(hello);
        stream
    });
    let error = a.dial(near, impostor_id).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Refused(Refusal::Secret)), "{error:?}");
    assert!(has_no_link(&a));
}

#[tokio::test]
async fn a_replayed_handshake_is_refused() {
    let (acceptor, dialler) = (TestNode::new(), TestNode::new());
    let recorded = record_handshake(&acceptor, &dialler).await;
    eventually("the recorded link is over", || has_no_link(&acceptor)).await;
    let (near, far) = duplex(4096);
    acceptor.accept(far);
    let mut stream = FrameStream::new(near);
    for frame in &recorded {
        stream.send(frame).await.unwrap();
    }
    stream.receive().await.unwrap(); // the challenge, with another nonce
    assert_eq!(stream.receive().await.unwrap(), Refusal::Secret.encode());
    assert_eq!(acceptor.refusals(Refusal::Secret), 1);
    assert!(has_no_link(&acceptor));
}

#[tokio::test]
async fn the_highest_common_protocol_is_spoken_and_none_means_no_link() {
    let check = async |dialler: (u16, u16), acceptor: (u16, u16), expected: Option<u16>| {
        let a = TestNode::with(NodeId::random(), SECRET, dialler);
        let b = TestNode::with(NodeId::random(), SECRET, acceptor);
        let (near, far) = duplex(4096);
        b.accept(far);
        let dialled = a.dial(near, b.id()).await;
        assert_eq!(a.links.get(&b.id()).map(|link| link.protocol), expected, "{dialler:?} {acceptor:?}");
        if expected.is_none() {
            assert!(matches!(dialled, Err(HandshakeError::Refused(Refusal::Protocol))), "{dialled:?}");
            assert_eq!(b.refusals(Refusal::Protocol), 1);
        }
    };
    check((1, 1), (1, 1), Some(1)).await;
    check((1, 3), (1, 2), Some(2)).await;
    check((2, 3), (1, 2), Some(2)).await;
    check((1, 1), (2, 2), None).await;
    check((3, 3), (1, 2), None).await;
}

#[tokio::test(start_paused = true)]
async fn strangers_are_turned_away_and_counted() {
    let node = TestNode::new();
    let four_gigabytes = [0xff; 4].to_vec();
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let empty_frame = vec![0, 0, 0, 0];
    let garbage = vec![0, 0, 0, 5, 1, 2, 3, 4, 5];
    for (count, bytes) in [four_gigabytes, http, empty_frame, garbage].into_iter().enumerate() {
        let (mut near, far) = duplex(4096);
        node.accept(far);
        near.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        timeout(LEASE * 2, near.read_to_end(&mut answer)).await.expect("cut off").unwrap();
        assert!(answer.len() < 16, "{answer:?}");
        assert_eq!(node.refusals(Refusal::Malformed), count as u64 + 1);
    }
    assert!(has_no_link(&node));
}

#[tokio::test(start_paused = true)]
async fn one_who_says_nothing_is_cut_off_in_time() {
    let node = TestNode::new();
    let (mut near, far) = duplex(4096);
    node.accept(far);
    let mut answer = Vec::new();
    let limit = LEASE.min(Duration::from_millis(1500)) + Duration::from_millis(10);
    timeout(limit, near.read_to_end(&mut answer)).await.expect("cut off").unwrap();
    assert_eq!(node.refusals(Refusal::Timeout), 1);
}

#[tokio::test(start_paused = true)]
async fn one_who_says_hello_and_no_more_is_cut_off_in_time() {
    let (node, stranger) = (TestNode::new(), TestNode::new());
    let (near, far) = duplex(4096);
    node.accept(far);
    let mut stream = FrameStream::new(near);
    let from = stranger.links.identity().introduction.clone();
    stream.send(&Hello { protocol: PROTOCOL, nonce: [7; 32], from }.encode()).await.unwrap();
    stream.receive().await.unwrap();
    let mut answer = Vec::new();
    timeout(LEASE + Duration::from_millis(10), stream.io.read_to_end(&mut answer)).await.expect("cut off").unwrap();
    assert_eq!(node.refusals(Refusal::Timeout), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_strangers_are_listened_to_and_a_peer_always_is() {
    let node = TestNode::new();
    let mut strangers = Vec::new();
    for number in 0..300 {
        let (near, far) = duplex(64);
        node.accept_from(if number % 3 == 0 { "127.0.0.2" } else { "127.0.0.3" }, far);
        strangers.push(near);
    }
    // Each address has half of the places: 100 of the first, and 72 too many of the second.
    eventually("the first give up their places", || node.refusals(Refusal::Busy) == 200 - 128).await;
    for _ in 0..300 {
        let (near, far) = duplex(64);
        node.accept_from("127.0.0.4", far);
        strangers.push(near);
    }
    eventually("no more than all are kept", || node.refusals(Refusal::Busy) == 600 - 256).await;
    assert_eq!(node.refusals(Refusal::Timeout), 0);
    TestNode::new().link(&node).await;
    // And one from where the strangers are.
    let (near, far) = duplex(64 * 1024);
    node.accept_from("127.0.0.4", far);
    TestNode::new().dial(near, node.id()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_cut_short_at_any_byte_leaves_no_link() {
    let (acceptor, dialler) = (TestNode::new(), TestNode::new());
    let recorded = record_handshake(&acceptor, &dialler).await;
    eventually("the recorded link is over", || has_no_link(&acceptor)).await;
    let mut stream = BytesMut::new();
    for frame in &recorded {
        stream.put_u32(u32::try_from(frame.len()).unwrap());
        stream.put_slice(frame);
    }
    for length in 0..stream.len() {
        let (mut near, far) = duplex(4096);
        acceptor.accept(far);
        near.write_all(&stream[..length]).await.unwrap();
        near.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(LEASE * 2, near.read_to_end(&mut answer)).await.expect("cut off").unwrap();
        assert!(has_no_link(&acceptor));
    }
}

#[tokio::test]
async fn one_who_answers_at_the_address_of_another_is_no_peer() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let (near, far) = duplex(4096);
    b.accept(far);
    let error = a.dial(near, NodeId::random()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::OtherNode { answered } if answered == b.id()), "{error:?}");
    let (near, far) = duplex(4096);
    a.accept(far);
    let error = a.dial(near, a.id()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Refused(Refusal::OwnId)), "{error:?}");
}

#[tokio::test]
async fn a_dead_node_is_not_linked_again() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let member = ClusterMember {
        node: a.id(),
        advertise: "127.0.0.1:1".to_owned(),
        version: String::new(),
        protocol: PROTOCOL,
        record: 1,
        key: NodeKey::Dead { epoch: 1 },
        lease_alive: false,
    };
    b.links.membership.replace(NodeTable { members: [(a.id(), member)].into(), ..NodeTable::default() });
    let (near, far) = duplex(4096);
    b.accept(far);
    let error = a.dial(near, b.id()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Refused(Refusal::Departed)), "{error:?}");
    assert!(matches!(b.links.peers()[0].link, PeerLink::Gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_dials_at_once_one_link_remains() {
    for round in 0..200 {
        let (a, b) = (TestNode::new(), TestNode::new());
        let (near_a, far_b) = duplex(64 + round);
        let (near_b, far_a) = duplex(64 + round);
        a.accept(far_a);
        b.accept(far_b);
        let (first, second) = tokio::join!(a.dial(near_a, b.id()), b.dial(near_b, a.id()));
        let linked = || a.links.get(&b.id()).zip(b.links.get(&a.id()));
        eventually("linked", || linked().is_some_and(|(a, b)| a.dialled != b.dialled)).await;
        let (of_a, of_b) = linked().unwrap();
        assert_ne!(of_a.dialled, of_b.dialled, "both ends are of one connection");
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        assert!(!of_a.is_stopped() && !of_b.is_stopped());
    }
}

#[tokio::test]
async fn a_peer_that_has_lost_its_link_dials_anew_and_the_stale_one_ends() {
    let a = TestNode::new();
    let (mut stale_wire, stale) = a.scripted_peer(4096).await;
    // The same node, but it knows of no link.
    let again = TestNode::with(stale.peer.node, SECRET, PROTOCOL);
    let fresh = again.link(&a).await;
    eventually("replaced", || a.links.get(&again.id()).is_some_and(|link| link.serial != stale.serial)).await;
    assert!(stale.is_stopped());
    let mut rest = Vec::new();
    stale_wire.io.read_to_end(&mut rest).await.unwrap();
    assert!(fresh.call(super::support::post(a.id(), Bytes::from_static(b"hi")), LEASE).await.is_ok());
}
