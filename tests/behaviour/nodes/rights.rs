//! Redis lets the nodes in with few rights, or not at all: they do all that they can, and say why they wait.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_connections::redis_client::{self, RedisCommand, RedisConnection, read};
use tidegate_testing::{
    EventType, Nodes, Plan, Process, RedisServer, Tidegate, Visitor, eventually, run, tidegate_path,
};

use crate::nodes::groups::{Caller, reached, room};

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
    eventually("Redis knows who has members", async || {
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
    let (succeeded, table) = run(tidegate_path(), &["nodes", "--config", &nodes.all[0].config()], &[]).await;
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
    eventually("the clients of the dead node are known to be gone", async || {
        nodes.ledger.count(EventType::Disconnect) == 3
    })
    .await;
    eventually("the dead node is buried", async || {
        caller.post(&nodes.all[0], "@groups/room-1", "again").await == reached(6, 0)
    })
    .await;

    // Redis forgets everything, and everything is written back.
    nodes.redis.run(&["FLUSHALL", "SYNC"]).await;
    eventually("all records are back", async || nodes.recorded().await == 6).await;
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
    let page = include_str!("../../../docs/cluster.md");
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

/// Returns how often Redis has refused a login or a command, by its own log.
async fn denied(redis: &RedisConnection) -> i64 {
    let log = redis.run_one(RedisCommand::new("ACL", "LOG".to_owned())).await.unwrap();
    let entries: Vec<HashMap<String, redis_client::Value>> = read(log).unwrap();
    entries.into_iter().map(|mut entry| read::<i64>(entry.remove("count").unwrap()).unwrap()).sum()
}

/// A configuration whose nodes log in like this.
fn config(folder: &Path, login: &str, port: u16) -> PathBuf {
    let file = folder.join("tidegate.yaml");
    let integrations =
        "    integrations: { b: { integrationType: AWS_PROXY, integrationUri: 'http://127.0.0.1:9/' } }\n";
    let text = format!(
        "listeners:\n  public: {{ address: '127.0.0.1:0' }}\n  internal: {{ address: '127.0.0.1:0' }}\n\
         registry: {{ type: redis, url: 'redis://{login}127.0.0.1:{port}/0', keyPrefix: t }}\n\
         cluster: {{ address: '127.0.0.1:0', secret: a secret of sixteen, leaseMillis: 2000 }}\n\
         apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n\
         {integrations}    routes: {{ $default: {{ target: integrations/b }} }}\n    stages: {{ prod: {{}} }}\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// The next line that says why Redis cannot be used.
async fn why(process: &mut Process, port: u16) -> String {
    let line: Value = serde_json::from_str(&process.line_with("Redis cannot be used").await).unwrap();
    assert_eq!((&line["level"], &line["redis"]), (&json!("WARN"), &json!(format!("127.0.0.1:{port}"))), "{line}");
    line["error"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_for_redis_says_why_at_once_and_again_when_the_cause_changes() {
    let (folder, mut redis) = (tempfile::tempdir().unwrap(), RedisServer::stopped(&["--requirepass", "right"]));
    let port = redis.port();
    let file = config(folder.path(), ":wrong@", port);
    // Nobody is there.
    let mut node = Tidegate::launch(&file, &[]);
    let first = why(&mut node, port).await;
    assert!(first.contains("nothing listens") && first.contains(&format!("127.0.0.1:{port}")), "{first}");
    // Somebody is, and does not let it in.
    redis.restart().await;
    let second = why(&mut node, port).await;
    assert!(second.contains("the user name or the password"), "{second}");
    assert!(!second.contains("wrong"), "{second}");
    // It tries on, and does not say the same again.
    let mut admin = redis.settings();
    admin.password = Some("right".to_owned().into());
    let admin = RedisConnection::open(&admin, Duration::from_secs(10)).await.unwrap();
    eventually("it has tried some times", async || denied(&admin).await >= 5).await;
    // It is let in, without the right to do anything.
    let set = |words: &[&str]| {
        let call = RedisCommand::new("ACL", "SETUSER".to_owned());
        words.iter().fold(call, |call, word| call.arg(word))
    };
    admin.run_one(set(&["default", "resetpass", ">wrong", "-@all", "+acl"])).await.unwrap();
    let third = why(&mut node, port).await;
    assert!(third.contains("the Redis user has no right to do this"), "{third}");
    admin.run_one(set(&["default", "+@all"])).await.unwrap();
    node.line_with("\"ready\"").await;
    node.signal("TERM");
    assert!(node.end().await.iter().all(|line| !line.contains("Redis cannot be used")), "each cause was said once");
}
