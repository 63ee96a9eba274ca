//! What becomes of a node's connections when it dies, leaves, or is only taken for dead: registries without sockets on a
//! real Redis.

use std::collections::BTreeSet;

use tidegate::cluster::Standing;
use tidegate::id::ConnectionId;
use tidegate::redis_client::{Call, read};
use tidegate::registry::claims::Arrival;
use tidegate::session::Closing;
use tokio::time::timeout;

use crate::support::{BROWSER, LEASE, Node, NodeOptions, RedisServer, SOON, connection, eventually};

/// Sends the events of all that `node` takes over, until these are done.
async fn deliver(node: &mut Node, mut expected: BTreeSet<ConnectionId>) -> Vec<(Arrival, Closing)> {
    let mut sent = Vec::new();
    while !expected.is_empty() {
        let arrival = timeout(SOON * 3, node.arrivals.recv()).await.expect("in time").expect("it reaps");
        let Some(ended) = node.registry.take_up(&arrival.id) else { continue };
        assert_eq!(ended.connection.user_agent.as_deref(), Some(BROWSER), "all that the event needs is there");
        assert!(node.registry.settle(&arrival.id));
        assert!(expected.remove(&arrival.id), "{arrival:?} once");
        sent.push((arrival, ended.closing));
    }
    sent
}

async fn is_buried(server: &RedisServer, dead: &Node) {
    let (tombstone, id) = (dead.mirror.keys().node(dead.id()), dead.id().to_string());
    eventually("nothing is left but a tombstone", || async {
        server.keys().await.iter().all(|key| !key.contains(&id) || *key == tombstone)
    })
    .await;
    let index = Call::command("HEXISTS", dead.mirror.keys().index()).arg(&id);
    eventually("the index has forgotten it", || async {
        !read::<bool>(server.connection().await.run_one(index.clone()).await.expect("an answer")).expect("0 or 1")
    })
    .await;
}

#[tokio::test]
async fn a_killed_nodes_connections_are_taken_over_each_once_and_it_is_buried() {
    let server = RedisServer::start().await;
    let (dead, mut reaper) = (Node::start(&server).await, Node::start(&server).await);
    let living = reaper.open().await;
    let mut expected = BTreeSet::new();
    for _ in 0..40 {
        expected.insert(dead.open().await.id);
    }
    let closed = dead.open().await.id;
    dead.registry.end(&closed, Closing::deleted(4001, "kicked"));
    dead.registry.retry(&closed);
    let connecting = connection(&dead.registry, Some(BROWSER));
    dead.registry.connect(&connecting, None);
    dead.registry.record(&connecting.id).await.expect("a record");
    assert!(dead.mirror.flush().await);
    expected.extend([closed, connecting.id]);
    dead.kill().await;

    let sent = deliver(&mut reaper, expected).await;
    for (arrival, closing) in sent {
        assert_eq!(arrival.connecting, arrival.id == connecting.id);
        let expected = if arrival.id == closed { (4001, "kicked") } else { (1006, "Connection closed abnormally") };
        assert_eq!((closing.code, &*closing.reason), expected);
    }
    is_buried(&server, &dead).await;
    assert!(matches!(reaper.membership.standing(&dead.id(), LEASE), Standing::Gone));
    assert!(reaper.registry.get_open(&living.id).is_some());
    assert_eq!(reaper.records(&server).await.len(), 1, "the living are left alone");
}

#[tokio::test]
async fn two_reapers_share_a_dead_node_and_no_more_is_held_than_there_is_room_for() {
    let server = RedisServer::start().await;
    let dead = Node::start(&server).await;
    let mut expected = BTreeSet::new();
    for _ in 0..300 {
        expected.insert(dead.open().await.id);
    }
    assert!(dead.mirror.flush().await);
    let options = || NodeOptions { held_max: 60, ..NodeOptions::new(&server) };
    let mut reapers = [Node::launch(options()), Node::launch(options())];
    for reaper in &reapers {
        reaper.is("attached").await;
    }
    dead.kill().await;
    eventually("both take part", || async { reapers.iter().all(|reaper| !reaper.registry.claims().is_empty()) }).await;
    let mut sent = BTreeSet::new();
    while sent.len() < expected.len() {
        for reaper in &mut reapers {
            assert!(reaper.registry.claims().len() <= 60);
            while let Ok(Some(arrival)) = timeout(std::time::Duration::from_millis(20), reaper.arrivals.recv()).await {
                if reaper.registry.take_up(&arrival.id).is_some() {
                    assert!(reaper.registry.settle(&arrival.id));
                    assert!(sent.insert(arrival.id), "once");
                }
            }
        }
    }
    assert_eq!(sent, expected);
    is_buried(&server, &dead).await;
}

#[tokio::test]
async fn a_reaper_that_dies_midway_is_followed_by_another() {
    let server = RedisServer::start().await;
    let (dead, mut first) = (Node::start(&server).await, Node::start(&server).await);
    let mut expected = BTreeSet::new();
    for _ in 0..20 {
        expected.insert(dead.open().await.id);
    }
    dead.kill().await;
    let some = timeout(SOON, first.arrivals.recv()).await.expect("in time").expect("it reaps").id;
    assert!(first.registry.settle(&some));
    expected.remove(&some);
    let bucket = dead.mirror.keys().bucket(dead.id(), usize::from(some.bucket()));
    let exists = Call::command("HEXISTS", bucket).arg(some.to_string());
    eventually("it is noted", || async {
        !read::<bool>(server.connection().await.run_one(exists.clone()).await.expect("an answer")).expect("0 or 1")
    })
    .await;
    let mut second = Node::start(&server).await;
    first.kill().await;
    deliver(&mut second, expected).await;
    is_buried(&server, &dead).await;
    is_buried(&server, &first).await;
}

#[tokio::test]
async fn what_is_held_survives_that_redis_forgets_it() {
    let mut server = RedisServer::start().await;
    let (dead, mut reaper) = (Node::start(&server).await, Node::start(&server).await);
    let mut expected = BTreeSet::new();
    for _ in 0..20 {
        expected.insert(dead.open().await.id);
    }
    dead.kill().await;
    eventually("all are held", || async { reaper.registry.claims().len() == 20 }).await;
    server.restart().await;
    eventually("all are written back", || async { dead.records(&server).await.len() == 20 }).await;
    deliver(&mut reaper, expected).await;
    is_buried(&server, &dead).await;
}

#[tokio::test]
async fn a_node_that_left_with_pending_events_is_taken_over_at_once() {
    let server = RedisServer::start().await;
    let (left, mut reaper) = (Node::start(&server).await, Node::start(&server).await);
    let id = left.open().await.id;
    left.registry.end(&id, Closing::drained());
    left.leave().await;
    let sent = deliver(&mut reaper, BTreeSet::from([id])).await;
    assert_eq!(sent[0].1.code, 1001);
    is_buried(&server, &left).await;
}

#[tokio::test]
async fn damaged_records_are_removed_and_hide_no_other() {
    let server = RedisServer::start().await;
    let (dead, mut reaper) = (Node::start(&server).await, Node::start(&server).await);
    let id = dead.open().await.id;
    assert!(dead.mirror.flush().await);
    dead.kill().await;
    let bucket = dead.mirror.keys().bucket(dead.id(), usize::from(id.bucket()));
    let rubbish = Call::command("HSET", bucket).arg(ConnectionId::random(dead.id()).to_string()).arg([0, 1]);
    let nameless = Call::command("HSET", dead.mirror.keys().bucket(dead.id(), 0)).arg("no id").arg("rubbish");
    server.connection().await.run(&[rubbish, nameless]).await.expect("answers");
    deliver(&mut reaper, BTreeSet::from([id])).await;
    is_buried(&server, &dead).await;
}

#[tokio::test]
async fn records_of_a_newer_format_are_left_to_a_newer_version() {
    let server = RedisServer::start().await;
    let (dead, reaper) = (Node::start(&server).await, Node::start(&server).await);
    let id = dead.open().await.id;
    assert!(dead.mirror.flush().await);
    dead.kill().await;
    let redis = server.connection().await;
    let bucket = dead.mirror.keys().bucket(dead.id(), usize::from(id.bucket()));
    redis.run_one(Call::command("HSET", bucket).arg(id.to_string()).arg([255, 1, 2])).await.expect("an answer");
    eventually("it is dead", || async { matches!(reaper.membership.standing(&dead.id(), LEASE), Standing::Gone) })
        .await;
    // Another one that dies later is taken over and buried: passes went by.
    let other = Node::start(&server).await;
    other.kill().await;
    is_buried(&server, &other).await;
    assert_eq!(dead.mirror.keys().index(), reaper.mirror.keys().index());
    let exists = Call::command("HEXISTS", dead.mirror.keys().bucket(dead.id(), usize::from(id.bucket())));
    assert!(read::<bool>(redis.run_one(exists.arg(id.to_string())).await.expect("an answer")).expect("0 or 1"));
    assert!(reaper.registry.claims().is_empty());
}
