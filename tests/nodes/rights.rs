//! Redis lets the nodes in with few rights, or not at all: they do all that they can, and say why they wait.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tidegate::redis_client::{self, Call, RedisConnection, read};

use crate::groups::{Caller, reached, room};
use crate::harness::{EventType, Nodes, Plan, Visitor, eventually};
use crate::process::run;

/// The rights of a user as `redis-server` takes them, on the keys of the tests.
type Rights = &'static [&'static str];

const NOTHING_DANGEROUS: Rights = &["--user", "tidegate", "on", ">right", "~t:*", "+@all", "-@dangerous"];

/// All that a node does with Redis, by a user who may do no more than these rights say.
async fn works(rights: Rights) -> Nodes {
    let plan = Plan { lease: Duration::from_secs(2), redis: rights, redis_login: "tidegate:right@", ..Plan::default() };
    let mut nodes = Nodes::start(plan).await;
    let caller = Caller::new();
    let mut visitors = room(&nodes, &caller, "room-1", 9).await;
    assert_eq!(caller.post(&nodes.all[0], "@groups/room-1", "hi").await, reached(9, 0));
    for visitor in &mut visitors {
        assert_eq!(visitor.next_text().await, "hi");
    }
    eventually("Redis knows who has members", || async {
        nodes.redis.keys().await.contains(&"t:g:{chat/room-1}".to_owned())
    })
    .await;

    // Operators' listings.
    assert_eq!(nodes.recorded().await, 9);
    let ids: BTreeSet<String> = nodes.all.iter().map(|node| node.id().to_owned()).collect();
    let (status, listed) = nodes.all[1].get("/nodes").await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let listed = listed["nodes"].as_array().unwrap().iter().map(|node| node["node"].as_str().unwrap().to_owned());
    assert_eq!((status, listed.collect::<BTreeSet<_>>()), (200, ids.clone()));
    let (succeeded, table) =
        run(env!("CARGO_BIN_EXE_tidegate"), &["nodes", "--config", &nodes.all[0].config()], &[]).await;
    assert!(succeeded && ids.iter().all(|id| table.contains(id.as_str())), "{table}");

    // A node dies, and others take over its clients.
    let (third, others): (Vec<Visitor>, Vec<Visitor>) = {
        let mut third = Vec::new();
        let mut others = Vec::new();
        for (number, visitor) in visitors.into_iter().enumerate() {
            if number % 3 == 2 { third.push(visitor) } else { others.push(visitor) }
        }
        (third, others)
    };
    nodes.all[2].kill().await;
    drop(third);
    eventually("the clients of the dead node are known to be gone", || async {
        nodes.ledger.count(EventType::Disconnect) == 3
    })
    .await;
    eventually("the dead node is buried", || async {
        caller.post(&nodes.all[0], "@groups/room-1", "again").await == reached(6, 0)
    })
    .await;

    // Redis forgets everything, and everything is written back.
    nodes.redis.run(&["FLUSHALL", "SYNC"]).await;
    eventually("all records are back", || async { nodes.recorded().await == 6 }).await;
    join_all(others.into_iter().map(Visitor::leave)).await;
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_do_nothing_dangerous_is_enough() {
    let mut nodes = works(NOTHING_DANGEROUS).await;
    let lines = nodes.all[0].stop().await;
    nodes.stop().await;
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("may not run INFO")).collect();
    assert!(told.len() <= 1, "{told:#?}");
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "all have left");
    // What the nodes may not do they try once for each connection, not at each heartbeat.
    let denied = denied(&nodes.redis.connection().await).await;
    assert!((1..20).contains(&denied), "{denied}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_the_documentation_names_are_enough_and_nothing_is_denied() {
    let page = include_str!("../../docs/cluster.md");
    let line =
        page.lines().find_map(|line| line.strip_prefix("ACL SETUSER tidegate ")).expect("a line with the rights");
    let line = line.replace(">PASSWORD", ">right").replace("~tidegate:*", "~t:*");
    let rights: Vec<&'static str> = ["--user".to_owned(), "tidegate".to_owned()]
        .into_iter()
        .chain(line.split(' ').map(str::to_owned))
        .map(|word| &*word.leak())
        .collect();
    let mut nodes = works(rights.leak()).await;
    nodes.stop().await;
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "all have left");
    assert_eq!(denied(&nodes.redis.connection().await).await, 0);
}

/// How often Redis has refused a login or a command, by its own log.
async fn denied(redis: &RedisConnection) -> i64 {
    let log = redis.run_one(Call::command("ACL", "LOG".to_owned())).await.unwrap();
    let entries: Vec<HashMap<String, redis_client::Value>> = read(log).unwrap();
    entries.into_iter().map(|mut entry| read::<i64>(entry.remove("count").unwrap()).unwrap()).sum()
}
