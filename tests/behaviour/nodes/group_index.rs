//! Redis says which nodes have members of a group, and is believed only where nobody can be missed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tidegate_connections::redis_client::{Value, read};
use tidegate_testing::{Mode, Nodes, Plan, RedisServer, Visitor, eventually, pass};

use crate::nodes::groups::{Caller, reached, room};

/// Which node has how many members of a group, as Redis says.
async fn holders(redis: &RedisServer, key: &'static str) -> BTreeMap<String, usize> {
    read(redis.run(&["HGETALL", key]).await).unwrap()
}

/// Returns how many requests about groups each node has got so far.
async fn asks(nodes: &Nodes) -> Vec<f64> {
    let mut asks = Vec::new();
    for node in &nodes.all {
        asks.push(node.metric("tidegate_link_asks_total").await.unwrap_or_default());
    }
    asks
}

/// A message for a group that nobody is in comes to no other node: what all have is written.
async fn settled(nodes: &Nodes, caller: &Caller) {
    eventually("all nodes are believed", async || {
        let before = asks(nodes).await;
        for node in &nodes.all {
            assert_eq!(caller.post(node, "@groups/nobody", "x").await, reached(0, 0));
        }
        asks(nodes).await == before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_only_to_nodes_that_have_members() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let caller = Caller::new();
    settled(&nodes, &caller).await;
    let mut member = Visitor::enter(nodes.all[1].public(), "member", &nodes.ledger).await;
    let other = Visitor::enter(nodes.all[2].public(), "other", &nodes.ledger).await;
    caller.join(&nodes.all[0], "room-1", &member).await;
    caller.join(&nodes.all[0], "room-2", &other).await;
    let before = asks(&nodes).await;
    assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "one").await, reached(1, 0));
    assert_eq!(caller.get(&nodes.all[0], "@groups/room-1").await, json!({ "connections": 1 }));
    let batch = "{\"group\":\"room-1\",\"data\":\"two\"}\n{\"group\":\"room-2\",\"data\":\"three\"}";
    assert_eq!(caller.call(&nodes.all[0], Method::POST, "@send", batch).await.0, 200);
    let asked: Vec<f64> = asks(&nodes).await.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(asked, [0.0, 3.0, 1.0], "a post, a count and a message; and one message");
    assert_eq!((member.next_text().await, member.next_text().await), ("one".to_owned(), "two".to_owned()));

    let first = nodes.all[1].id().to_owned();
    assert_eq!(holders(&nodes.redis, "t:g:{chat/room-1}").await, [(first.clone(), 1)].into());
    let more = Visitor::enter(nodes.all[1].public(), "more", &nodes.ledger).await;
    caller.join(&nodes.all[2], "room-1", &more).await;
    eventually("their number is written", async || {
        holders(&nodes.redis, "t:g:{chat/room-1}").await == [(first.clone(), 2)].into()
    })
    .await;
    more.leave().await;
    member.leave().await;
    eventually("nobody is left", async || nodes.redis.run(&["EXISTS", "t:g:{chat/room-1}"]).await == Value::Int(0))
        .await;
    let before = asks(&nodes).await;
    assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "four").await, reached(0, 0));
    assert_eq!(asks(&nodes).await, before);
    nodes.stop().await;
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "nothing remains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_dead_node_vanish_when_it_is_buried() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let caller = Caller::new();
    let _visitors = room(&nodes, &caller, "room-1", 6).await;
    let ids: Vec<String> = nodes.all.iter().map(|node| node.id().to_owned()).collect();
    settled(&nodes, &caller).await;
    assert_eq!(holders(&nodes.redis, "t:g:{chat/room-1}").await.len(), 3);
    nodes.all[2].kill().await;
    eventually("it is buried", async || {
        let keys = nodes.redis.keys().await;
        let own = format!("{{{}}}", ids[2]);
        keys.iter().all(|key| !key.contains(&own) || key.ends_with(":node"))
    })
    .await;
    let left = holders(&nodes.redis, "t:g:{chat/room-1}").await;
    assert_eq!(left.into_keys().collect::<Vec<_>>(), sorted(&ids[..2]));
    let leases: BTreeMap<String, String> = read(nodes.redis.run(&["HGETALL", "t:roster"]).await).unwrap();
    assert_eq!(leases.into_keys().collect::<Vec<_>>(), sorted(&ids[..2]));
    eventually("it is not asked any more", async || {
        caller.post(&nodes.all[0], "@groups/room-1", "x").await == reached(4, 0)
    })
    .await;
    nodes.stop().await;
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_forgets_is_written_again_and_nobody_is_missed_meanwhile() {
    let mut nodes = Nodes::start(Plan::default()).await;
    let caller = Caller::new();
    let _visitors = room(&nodes, &caller, "room-1", 6).await;
    settled(&nodes, &caller).await;
    nodes.redis.run(&["FLUSHALL", "SYNC"]).await;
    assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "x").await, reached(6, 0));
    eventually("it is written again", async || {
        assert_eq!(caller.post(&nodes.all[1], "@groups/room-1", "x").await, reached(6, 0));
        let written = holders(&nodes.redis, "t:g:{chat/room-1}").await;
        written.into_values().collect::<Vec<_>>() == [2, 2, 2]
    })
    .await;
    settled(&nodes, &caller).await;
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_from_redis_is_asked_for_what_joins_there() {
    let mut nodes = Nodes::start(Plan { proxied: true, lease: Duration::from_secs(6), ..Plan::default() }).await;
    let caller = Caller::new();
    settled(&nodes, &caller).await;
    let member = Visitor::enter(nodes.all[1].public(), "member", &nodes.ledger).await;
    nodes.all[1].redis_proxy.as_ref().unwrap().set(Mode::Hang);
    caller.join(&nodes.all[1], "room-1", &member).await;
    assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "x").await, reached(1, 0));
    assert_eq!(holders(&nodes.redis, "t:g:{chat/room-1}").await, BTreeMap::new(), "it could not be written");
    nodes.all[1].redis_proxy.as_ref().unwrap().set(Mode::Pass);
    eventually("it is written", async || {
        assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "x").await, reached(1, 0));
        !holders(&nodes.redis, "t:g:{chat/room-1}").await.is_empty()
    })
    .await;
    nodes.stop().await;
}

/// Whatever Redis does: who was told to be a member gets what is sent afterwards, from any node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_joined_is_reached_from_any_node_whatever_redis_does() {
    const TROUBLES: usize = 9;
    const HANGS_FOR: Duration = Duration::from_millis(1300);
    const CALM: Duration = Duration::from_millis(700);
    let mut nodes = Nodes::start(Plan { lease: Duration::from_secs(10), ..Plan::default() }).await;
    let caller = Caller::new();
    let mut visitors = Vec::new();
    for number in 0..6 {
        let node = &nodes.all[number % 3];
        visitors.push((number % 3, Visitor::enter(node.public(), &format!("v{number}"), &nodes.ledger).await));
    }
    let over = AtomicBool::new(false);
    let trouble = async {
        for number in 0..TROUBLES {
            match number % 3 {
                0 => _ = nodes.redis.run(&["FLUSHALL", "SYNC"]).await,
                1 => {
                    nodes.redis.signal("STOP");
                    pass(HANGS_FOR).await;
                    nodes.redis.signal("CONT");
                }
                _ => _ = nodes.redis.run(&["CLIENT", "KILL", "TYPE", "normal"]).await,
            }
            pass(CALM).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let sent = async {
        let mut round = 0;
        while !over.load(Ordering::Relaxed) {
            let (owner, visitor) = &visitors[round % visitors.len()];
            let group = format!("round-{round}");
            caller.join(&nodes.all[(round / 2) % 3], &group, visitor).await;
            let from = &nodes.all[(owner + 1 + round % 2) % 3];
            let report = caller.post(from, &format!("@groups/{group}"), format!("{round}")).await;
            assert_eq!(report, reached(1, 0), "round {round}");
            if round % 3 == 0 {
                let path = format!("@groups/{group}/connections/{}", visitor.id);
                assert_eq!(caller.call(from, Method::DELETE, &path, "").await.0, 204);
                assert_eq!(caller.post(from, &format!("@groups/{group}"), "nobody").await, reached(0, 0));
            }
            round += 1;
        }
        round
    };
    let ((), rounds) = tokio::join!(trouble, sent);
    for (number, (_, visitor)) in visitors.iter_mut().enumerate() {
        for round in (number..rounds).step_by(6) {
            assert_eq!(visitor.next_text().await, round.to_string(), "each once, and in order");
        }
    }
    nodes.stop().await;
}
