//! Connections of a node that dies, leaves, or is only taken for dead: registries without sockets on a
//! real Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_connections::cluster::Standing;
use tidegate_connections::redis_client::{RedisCommand, read};
use tidegate_connections::registry::claims::ClaimedEvent;
use tidegate_connections::session::Closing;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::limits::LimitSettings;
use tidegate_testing::{
    BROWSER, REGISTRY_LEASE, RedisServer, RegistryNode, RegistryNodeOptions, connection, eventually,
};
use tokio::time::timeout;

use crate::registry::SOON;

/// Sends the events of all that `node` takes over, until these are done.
async fn deliver(node: &mut RegistryNode, mut expected: BTreeSet<ConnectionId>) -> Vec<(ClaimedEvent, Closing)> {
    let mut sent = Vec::new();
    while !expected.is_empty() {
        let event = timeout(SOON * 3, node.events.recv()).await.expect("in time").expect("it reaps");
        let Some(ended) = node.registry.begin_attempt(&event.id) else { continue };
        assert_eq!(ended.connection.user_agent.as_deref(), Some(BROWSER), "all that the event needs is there");
        assert!(node.registry.settle(&event.id));
        assert!(expected.remove(&event.id), "{event:?} once");
        sent.push((event, ended.closing));
    }
    sent
}

async fn is_buried(server: &RedisServer, dead: &RegistryNode) {
    is_buried_but_for(server, dead, &[]).await;
}

/// Nothing is left of a dead node but a tombstone and these keys.
async fn is_buried_but_for(server: &RedisServer, dead: &RegistryNode, rest: &[String]) {
    let (tombstone, id) = (dead.replica.keys().node(dead.id()), dead.id().to_string());
    eventually("nothing else is left of it", async || {
        let keys = server.keys().await;
        rest.iter().all(|key| keys.contains(key))
            && keys.iter().all(|key| !key.contains(&id) || *key == tombstone || rest.contains(key))
    })
    .await;
    let index = RedisCommand::new("HEXISTS", dead.replica.keys().index()).arg(&id);
    eventually("the index has forgotten it", async || {
        !read::<bool>(server.connection().await.run_one(index.clone()).await.expect("an answer")).expect("0 or 1")
    })
    .await;
}

#[tokio::test]
async fn a_killed_nodes_connections_are_taken_over_each_once_and_it_is_buried() {
    let server = RedisServer::start().await;
    let (dead, mut reaper) = (RegistryNode::start(&server).await, RegistryNode::start(&server).await);
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
    assert!(dead.replica.flush().await);
    expected.extend([closed, connecting.id]);
    dead.kill().await;

    let sent = deliver(&mut reaper, expected).await;
    for (event, closing) in sent {
        assert_eq!(event.connecting, event.id == connecting.id);
        let expected = if event.id == closed { (4001, "kicked") } else { (1006, "Connection closed abnormally") };
        assert_eq!((closing.code, &*closing.reason), expected);
    }
    is_buried(&server, &dead).await;
    assert!(matches!(reaper.membership.standing(&dead.id(), REGISTRY_LEASE), Standing::Gone));
    assert!(reaper.registry.get_open(&living.id).is_some());
    assert_eq!(reaper.records(&server).await.len(), 1, "the living are left alone");
}

#[tokio::test]
async fn two_reapers_share_a_dead_node_and_no_more_is_held_than_there_is_room_for() {
    let server = RedisServer::start().await;
    let dead = RegistryNode::start(&server).await;
    let mut expected = BTreeSet::new();
    for _ in 0..300 {
        expected.insert(dead.open().await.id);
    }
    assert!(dead.replica.flush().await);
    let options = || RegistryNodeOptions { disconnect_backlog: 60, ..RegistryNodeOptions::new(&server) };
    let mut reapers = [RegistryNode::launch(options()), RegistryNode::launch(options())];
    for reaper in &reapers {
        reaper.is("attached").await;
    }
    dead.kill().await;
    eventually("both take part", async || reapers.iter().all(|reaper| !reaper.registry.claims().is_empty())).await;
    let mut sent = BTreeSet::new();
    while sent.len() < expected.len() {
        for reaper in &mut reapers {
            assert!(reaper.registry.claims().len() <= 60);
            while let Ok(Some(event)) = timeout(std::time::Duration::from_millis(20), reaper.events.recv()).await {
                if reaper.registry.begin_attempt(&event.id).is_some() {
                    assert!(reaper.registry.settle(&event.id));
                    assert!(sent.insert(event.id), "once");
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
    let (dead, mut first) = (RegistryNode::start(&server).await, RegistryNode::start(&server).await);
    let mut expected = BTreeSet::new();
    for _ in 0..20 {
        expected.insert(dead.open().await.id);
    }
    dead.kill().await;
    let some = timeout(SOON, first.events.recv()).await.expect("in time").expect("it reaps").id;
    assert!(first.registry.settle(&some));
    expected.remove(&some);
    let bucket = dead.replica.keys().bucket(dead.id(), usize::from(some.bucket()));
    let exists = RedisCommand::new("HEXISTS", bucket).arg(some.to_string());
    eventually("it is noted", async || {
        !read::<bool>(server.connection().await.run_one(exists.clone()).await.expect("an answer")).expect("0 or 1")
    })
    .await;
    let mut second = RegistryNode::start(&server).await;
    first.kill().await;
    deliver(&mut second, expected).await;
    is_buried(&server, &dead).await;
    is_buried(&server, &first).await;
}

#[tokio::test]
async fn what_is_held_survives_that_redis_forgets_it() {
    let mut server = RedisServer::start().await;
    let (dead, mut reaper) = (RegistryNode::start(&server).await, RegistryNode::start(&server).await);
    let mut expected = BTreeSet::new();
    for _ in 0..20 {
        expected.insert(dead.open().await.id);
    }
    dead.kill().await;
    eventually("all are held", async || reaper.registry.claims().len() == 20).await;
    server.restart().await;
    eventually("all are written back", async || dead.records(&server).await.len() == 20).await;
    deliver(&mut reaper, expected).await;
    is_buried(&server, &dead).await;
}

#[tokio::test]
async fn a_node_that_left_with_pending_events_is_taken_over_at_once() {
    let server = RedisServer::start().await;
    let (left, mut reaper) = (RegistryNode::start(&server).await, RegistryNode::start(&server).await);
    let id = left.open().await.id;
    left.registry.end(&id, Closing::drained());
    left.leave().await;
    let sent = deliver(&mut reaper, BTreeSet::from([id])).await;
    assert_eq!(sent[0].1.code, 1001);
    is_buried(&server, &left).await;
}

/// A record whose format nobody knows.
const DAMAGED: [u8; 3] = [7, 1, 2];

/// Puts records that nobody can read among those of a dead node: of an unknown format, cut short, without an id, and
/// without a name that is text.
async fn damage(server: &RedisServer, dead: &RegistryNode) -> usize {
    let bucket = |bucket| dead.replica.keys().bucket(dead.id(), bucket);
    let id = ConnectionId::random(dead.id());
    let own = bucket(usize::from(id.bucket()));
    let other = ConnectionId::random(dead.id());
    let calls = [
        RedisCommand::new("HSET", own).arg(id.to_string()).arg(DAMAGED),
        RedisCommand::new("HSET", bucket(usize::from(other.bucket()))).arg(other.to_string()).arg([1, 0x93]),
        RedisCommand::new("HSET", bucket(0)).arg("no id").arg("rubbish"),
        RedisCommand::new("HSET", bucket(15)).arg([0xff, 0xfe]).arg([0xff]),
    ];
    server.connection().await.run(&calls).await.expect("answers");
    calls.len()
}

/// The value of a metric without labels.
fn metric(node: &RegistryNode, name: &str) -> usize {
    let text = node.metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

#[tokio::test]
async fn damaged_records_keep_no_other_from_being_told_and_are_lost_when_their_day_is_over() {
    let server = RedisServer::start().await;
    let (dead, mut reaper) = (RegistryNode::start(&server).await, RegistryNode::start(&server).await);
    let mut expected = BTreeSet::new();
    for _ in 0..40 {
        expected.insert(dead.open().await.id);
    }
    assert!(dead.replica.flush().await);
    let damaged = damage(&server, &dead).await;
    dead.kill().await;
    deliver(&mut reaper, expected).await;
    let keys = dead.replica.keys();
    let kept = [keys.unreadable(dead.id()), keys.strings(dead.id())];
    is_buried_but_for(&server, &dead, &kept).await;
    eventually("they are counted", async || metric(&reaper, "tidegate_unreadable_records") == damaged).await;
    assert_eq!(metric(&reaper, "tidegate_unreadable_records_lost_total"), 0);
    assert!(matches!(reaper.membership.standing(&dead.id(), REGISTRY_LEASE), Standing::Gone));

    // Another node finds them after the first has died, and is no better at reading them.
    reaper.kill().await;
    let next = RegistryNode::start(&server).await;
    eventually("it has found them", async || metric(&next, "tidegate_unreadable_records") == damaged).await;
    is_buried(&server, &reaper).await;
    is_buried_but_for(&server, &dead, &kept).await;
    next.kill().await;
    let last = RegistryNode::launch(RegistryNodeOptions {
        unreadable_kept: Duration::ZERO,
        ..RegistryNodeOptions::new(&server)
    });
    eventually("they are lost", async || metric(&last, "tidegate_unreadable_records_lost_total") == damaged).await;
    is_buried(&server, &dead).await;
    eventually("the index has forgotten them", async || !server.keys().await.contains(&keys.unreadable_index())).await;
    assert_eq!(metric(&last, "tidegate_unreadable_records"), 0);
}

#[tokio::test]
async fn a_record_that_was_set_aside_is_taken_over_by_a_version_that_reads_it() {
    let server = RedisServer::start().await;
    let (dead, old) = (RegistryNode::start(&server).await, RegistryNode::start(&server).await);
    let id = dead.open().await.id;
    assert!(dead.replica.flush().await);
    let keys = dead.replica.keys();
    let bucket = keys.bucket(dead.id(), usize::from(id.bucket()));
    let redis = server.connection().await;
    let get = RedisCommand::new("HGET", bucket.clone()).arg(id.to_string());
    let record: Vec<u8> = redis.run_one(get).await.and_then(read).expect("a record");
    redis.run_one(RedisCommand::new("HSET", bucket).arg(id.to_string()).arg(DAMAGED)).await.expect("written");
    dead.kill().await;
    let unreadable = keys.unreadable(dead.id());
    is_buried_but_for(&server, &dead, &[unreadable.clone(), keys.strings(dead.id())]).await;
    old.kill().await;
    // What the next one finds is what its version reads.
    redis.run_one(RedisCommand::new("HSET", unreadable).arg(id.to_string()).arg(record)).await.expect("written");
    let mut new = RegistryNode::start(&server).await;
    deliver(&mut new, BTreeSet::from([id])).await;
    is_buried(&server, &dead).await;
    eventually("the index has forgotten it", async || !server.keys().await.contains(&keys.unreadable_index())).await;
    assert_eq!(metric(&new, "tidegate_unreadable_records_lost_total"), 0);
}

#[tokio::test]
async fn a_dead_node_of_a_later_format_is_left_to_its_like_as_long_as_there_is_one() {
    let server = RedisServer::start().await;
    let (dead, mut reaper) = (RegistryNode::start(&server).await, RegistryNode::start(&server).await);
    let id = dead.open().await.id;
    assert!(dead.replica.flush().await);
    let (keys, redis, newer) = (dead.replica.keys(), server.connection().await, NodeId::random());
    let entry = r#"{"v":1,"protocol":[1,2],"record":9,"advertise":"127.0.0.1:1","version":"9"}"#;
    let calls = [
        RedisCommand::new("SET", keys.node(newer)).arg("live 1"),
        RedisCommand::new("SET", keys.lease(newer)).arg("1"),
        RedisCommand::new("HSET", keys.index()).arg(newer.to_string()).arg(entry),
        RedisCommand::new("HSET", keys.index()).arg(dead.id().to_string()).arg(entry),
    ];
    redis.run(&calls).await.expect("answers");
    dead.kill().await;
    let is_dead = || async { matches!(reaper.membership.standing(&dead.id(), REGISTRY_LEASE), Standing::Gone) };
    eventually("it is dead", is_dead).await;
    // Another one that dies later is taken over and removed: passes went by.
    let other = RegistryNode::start(&server).await;
    other.kill().await;
    is_buried(&server, &other).await;
    assert!(reaper.registry.claims().is_empty());
    redis.run_one(RedisCommand::new("DEL", keys.lease(newer))).await.expect("an answer");
    // Of what it wrote most can be read.
    deliver(&mut reaper, BTreeSet::from([id])).await;
    is_buried(&server, &dead).await;
}

#[tokio::test]
async fn whatever_else_is_damaged_keeps_nobody_from_being_told() {
    let server = RedisServer::start().await;
    let (dead, worse, mut reaper) =
        (RegistryNode::start(&server).await, RegistryNode::start(&server).await, RegistryNode::start(&server).await);
    let mut expected = BTreeSet::new();
    for _ in 0..10 {
        expected.insert(dead.open().await.id);
    }
    assert!(dead.replica.flush().await);
    let keys = dead.replica.keys();
    let bad = NodeId::random();
    let calls = [
        RedisCommand::new("HSET", keys.strings(dead.id())).arg("no number").arg("rubbish"),
        RedisCommand::new("HSET", keys.strings(dead.id())).arg("4000000").arg([0xff]),
        RedisCommand::new("HSET", keys.index()).arg([0xff, 0xfe]).arg([0xff]),
        RedisCommand::new("HSET", keys.index())
            .arg(bad.to_string())
            .arg(r#"{"v":1,"protocol":[1,2],"record":1,"advertise":"a:1","version":"1"}"#),
        RedisCommand::new("SET", keys.node(bad)).arg([0xff, 0xfe]),
        RedisCommand::new("SET", keys.bucket(worse.id(), 3)).arg("no hash"),
        RedisCommand::new("HSET", keys.unreadable_index()).arg("no node").arg("rubbish"),
        RedisCommand::new("HSET", keys.unreadable_index()).arg(NodeId::random().to_string()).arg("without records"),
    ];
    server.connection().await.run(&calls).await.expect("answers");
    worse.kill().await;
    dead.kill().await;
    deliver(&mut reaper, expected).await;
    is_buried(&server, &dead).await;
    eventually("the index has forgotten them", async || !server.keys().await.contains(&keys.unreadable_index())).await;
    assert_eq!(reaper.state().name(), "attached");
}

#[tokio::test]
async fn a_bucket_that_is_larger_than_there_is_room_is_read_bit_by_bit() {
    let server = RedisServer::start().await;
    let dead = RegistryNode::start(&server).await;
    let mut expected = BTreeSet::new();
    for _ in 0..200 {
        expected.insert(dead.open().await.id);
    }
    assert!(dead.replica.flush().await);
    dead.kill().await;
    let mut first =
        RegistryNode::launch(RegistryNodeOptions { disconnect_backlog: 5, ..RegistryNodeOptions::new(&server) });
    while expected.len() > 100 {
        let id = timeout(SOON * 3, deliver_one(&mut first)).await.expect("in time");
        assert!(expected.remove(&id), "once");
    }
    first.kill().await;
    // The second goes on where the first died; its bound is that of its own ended connections.
    let mut second = RegistryNode::launch(RegistryNodeOptions::new(&server));
    second.registry.set_limits(&LimitSettings { disconnect_backlog: 5, ..LimitSettings::default() });
    while !expected.is_empty() {
        // What the first did last it may not have noted.
        expected.remove(&timeout(SOON * 3, deliver_one(&mut second)).await.expect("in time"));
    }
    let rest = async {
        loop {
            deliver_one(&mut second).await;
        }
    };
    tokio::select! {
        () = is_buried(&server, &dead) => {}
        () = rest => {}
    }
}

/// Sends the event of one that `node` takes over, which never holds more than five.
async fn deliver_one(node: &mut RegistryNode) -> ConnectionId {
    loop {
        let event = node.events.recv().await.expect("it reaps");
        assert!(node.registry.claims().len() <= 5, "{}", node.registry.claims().len());
        if node.registry.begin_attempt(&event.id).is_some() {
            assert!(node.registry.settle(&event.id));
            return event.id;
        }
    }
}

#[tokio::test]
async fn of_a_header_that_another_node_kept_whole_only_the_begin_is_held() {
    let server = RedisServer::start().await;
    let (dead, mut reaper) = (RegistryNode::start(&server).await, RegistryNode::start(&server).await);
    let agent = "é".repeat(16_000);
    let connection = connection(&dead.registry, Some(&agent));
    dead.registry.connect(&connection, None);
    dead.registry.record(&connection.id).await.expect("a record");
    dead.kill().await;
    let event = timeout(SOON * 3, reaper.events.recv()).await.expect("in time").expect("it reaps");
    let ended = reaper.registry.begin_attempt(&event.id).expect("its claim is fresh");
    assert_eq!(ended.connection.user_agent.as_deref(), Some(&agent[..512]));
}
