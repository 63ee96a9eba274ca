use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use super::support::{LEASE, TestNode, eventually, post, send_frame};
use crate::cluster::link::{LinkFrame, PeerAnswer, PeerCallError, PeerOutcome, Refusal};

#[tokio::test(start_paused = true)]
async fn a_peer_that_hangs_is_noticed() {
    let a = TestNode::new();
    let (stream, link) = a.scripted_peer(4096).await;
    let started = Instant::now();
    let unknown = link.call(post(link.peer.node, "hi"), LEASE * 10).await;
    assert_eq!(unknown, Err(PeerCallError::Unknown));
    assert!(started.elapsed() <= LEASE * 2 / 3 + LEASE / 100, "{:?}", started.elapsed());
    assert!(a.links.get(&link.peer.node).is_none());
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_nothing_to_say_but_answers_pings_stays() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let link = a.link(&b).await;
    tokio::time::sleep(LEASE * 100).await;
    assert_eq!(link.call(post(b.id(), "hi"), LEASE).await, Ok(PeerAnswer::Outcome(PeerOutcome::Done)));
    assert_eq!(a.links.get(&b.id()).unwrap().serial, link.serial);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_answers_first_and_is_gone_then() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let link = a.link(&b).await;
    let held = link.call(post(b.id(), "hold"), LEASE);
    let leave = async {
        eventually("posted", || b.connections.count() == 1).await;
        tokio::join!(b.links.leave(LEASE), async {
            tokio::time::sleep(LEASE / 10).await;
            assert!(!a.links.has_departed(&b.id()), "not before everything is answered");
            b.connections.release(true);
        });
    };
    assert_eq!(tokio::join!(held, leave).0, Ok(PeerAnswer::Outcome(PeerOutcome::Done)));
    eventually("gone", || a.links.has_departed(&b.id()) && a.links.get(&b.id()).is_none()).await;
    // Neither side opens another link.
    let (near, far) = tokio::io::duplex(4096);
    b.accept(far);
    assert!(a.dial(near, b.id()).await.is_err());
    assert_eq!(b.refusals(Refusal::Leaving), 1);
    let (near, far) = tokio::io::duplex(4096);
    a.accept(far);
    assert!(b.dial(near, a.id()).await.is_err());
    assert_eq!(a.refusals(Refusal::Departed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_leaving_node_did_not_act_on_is_gone() {
    let a = TestNode::new();
    let (mut stream, link) = a.scripted_peer(4096).await;
    let call = link.call(post(link.peer.node, "too late"), LEASE);
    let goodbye = async {
        tokio::time::sleep(LEASE / 10).await;
        send_frame(&mut stream, &LinkFrame::Goodbye).await;
    };
    assert_eq!(tokio::join!(call, goodbye).0, Err(PeerCallError::Gone));
    let mut rest = Vec::new();
    stream.io.read_to_end(&mut rest).await.unwrap();
    assert!(a.links.has_departed(&link.peer.node));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_answer_leaves_without_goodbye() {
    let (a, b) = (TestNode::new(), TestNode::new());
    let link = a.link(&b).await;
    let held = link.call(post(b.id(), "hold"), LEASE);
    let leave = async {
        eventually("posted", || b.connections.count() == 1).await;
        b.links.leave(LEASE / 10).await;
    };
    assert_eq!(tokio::join!(held, leave).0, Err(PeerCallError::Unknown));
    eventually("lost", || a.links.get(&b.id()).is_none()).await;
    assert!(!a.links.has_departed(&b.id()), "its connections may live: nobody said otherwise");
}
