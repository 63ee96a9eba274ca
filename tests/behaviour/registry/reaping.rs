//! The scripts by which dead nodes are taken over, each answer of each, on a real Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::FromRedisValue;
use tidegate_connections::cluster::reaper::scripts as reaping;
use tidegate_connections::cluster::scripts;
use tidegate_connections::redis_client::{Keys, NodeKey, RedisCommand, RedisConnection, read};
use tidegate_connections::registry;
use tidegate_core::id::NodeId;
use tidegate_testing::RedisServer;

const REGISTRY_LEASE: Duration = Duration::from_secs(60);
const LATER: u64 = u64::MAX >> 16;

struct Test {
    _server: RedisServer,
    redis: RedisConnection,
    keys: Keys,
    node: NodeId,
    reaper: NodeId,
    other: NodeId,
}

impl Test {
    async fn start() -> Self {
        let server = RedisServer::start().await;
        let redis = server.connection().await;
        let [node, reaper, other] = std::array::from_fn(|_| NodeId::random());
        Test { _server: server, redis, keys: Keys::new("t"), node, reaper, other }
    }

    #[track_caller]
    fn check(&self, call: RedisCommand, expected: &str) -> impl Future<Output = ()> {
        let (redis, expected) = (self.redis.clone(), expected.to_owned());
        let caller = std::panic::Location::caller();
        async move {
            let answer: String = redis.run_one(call).await.and_then(read).expect("an answer");
            assert_eq!(answer, expected, "{caller}");
        }
    }

    async fn ask<T: FromRedisValue>(&self, call: RedisCommand) -> T {
        self.redis.run_one(call).await.and_then(read).expect("an answer")
    }

    async fn run(&self, call: RedisCommand) {
        self.redis.run_one(call).await.expect("an answer");
    }

    async fn set(&self, key: &str, value: &str) {
        self.run(RedisCommand::new("SET", key.to_owned()).arg(value)).await;
    }

    async fn get(&self, key: String) -> Option<String> {
        self.ask(RedisCommand::new("GET", key)).await
    }

    async fn ttl(&self, key: String) -> i64 {
        self.ask(RedisCommand::new("PTTL", key)).await
    }

    async fn exists(&self, key: String) -> bool {
        self.ask(RedisCommand::new("EXISTS", key)).await
    }

    async fn bucket(&self, bucket: usize) -> BTreeMap<String, String> {
        let key = self.keys.bucket(self.node, bucket);
        self.ask(RedisCommand::new("HGETALL", key)).await
    }

    async fn record(&self, bucket: usize, id: &str, record: &str) {
        self.run(RedisCommand::new("HSET", self.keys.bucket(self.node, bucket)).arg(id).arg(record)).await;
    }

    async fn claim(&self, by: NodeId) -> (String, Vec<String>) {
        self.ask(reaping::claim(&self.keys, self.node, 3, by, REGISTRY_LEASE)).await
    }

    async fn keep(&self, by: NodeId) -> (String, String) {
        self.ask(reaping::keep(&self.keys, self.node, 3, by, REGISTRY_LEASE)).await
    }

    fn node_key(&self) -> String {
        self.keys.node(self.node)
    }
}

fn records(all: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    all.iter().map(|(id, record)| ((*id).to_owned(), record.as_bytes().to_vec())).collect()
}

#[tokio::test]
async fn a_node_is_condemned_as_it_was_seen_and_in_time_or_not_at_all() {
    let test = Test::start().await;
    let condemn =
        |seen: &str, not_after| reaping::condemn(&test.keys, test.node, NodeKey::parse(seen).unwrap(), not_after);
    test.check(scripts::register(&test.keys, test.node, 7, REGISTRY_LEASE), "OK").await;
    test.check(condemn("live 7", LATER), "ALIVE").await;
    test.run(RedisCommand::new("DEL", test.keys.lease(test.node))).await;
    test.check(condemn("live 7", 1), "LATE").await;
    test.check(condemn("live 6", LATER), "CHANGED").await;
    test.check(condemn("MISSING", LATER), "CHANGED").await;
    assert_eq!(test.get(test.node_key()).await.as_deref(), Some("live 7"));
    test.check(condemn("live 7", LATER), "OK").await;
    assert_eq!(test.get(test.node_key()).await.as_deref(), Some("dead 7"));
    test.check(condemn("dead 7", LATER), "CHANGED").await;
    // It cannot come back, and nothing is written for it.
    test.check(scripts::renew(&test.keys, test.node, 7, REGISTRY_LEASE), "dead 7").await;
    test.check(registry::scripts::write(&test.keys, test.node, 7, &[], Vec::new()), "dead 7").await;
    test.check(scripts::register(&test.keys, test.node, 8, REGISTRY_LEASE), "dead 7").await;
    test.check(scripts::leave(&test.keys, test.node, 7), "dead 7").await;
}

#[tokio::test]
async fn a_node_that_redis_has_forgotten_is_condemned_without_an_epoch() {
    let test = Test::start().await;
    test.check(reaping::condemn(&test.keys, test.node, NodeKey::Missing, LATER), "OK").await;
    assert_eq!(test.get(test.node_key()).await.as_deref(), Some("dead 0"));
}

#[tokio::test]
async fn one_node_claims_a_bucket_and_only_of_a_dead_node() {
    let test = Test::start().await;
    test.record(3, "a", "record").await;
    assert_eq!(test.claim(test.reaper).await, ("MISSING".to_owned(), vec![]));
    test.set(&test.node_key(), "live 7").await;
    assert_eq!(test.claim(test.reaper).await, ("live 7".to_owned(), vec![]));
    assert_eq!(test.keep(test.reaper).await, ("GONE".to_owned(), "live 7".to_owned()));
    test.set(&test.node_key(), "dead 7").await;
    assert_eq!(test.keep(test.reaper).await, ("GONE".to_owned(), "dead 7".to_owned()));
    let mine = ("MINE".to_owned(), vec!["a".to_owned()]);
    assert_eq!(test.claim(test.reaper).await, mine);
    assert_eq!(test.claim(test.other).await, ("TAKEN".to_owned(), vec![]));
    assert_eq!(test.keep(test.other).await, ("TAKEN".to_owned(), "dead 7".to_owned()));
    let claim = test.keys.claim(test.node, 3);
    test.run(RedisCommand::new("PEXPIRE", claim.clone()).arg("1000")).await;
    assert_eq!(test.keep(test.reaper).await, ("OK".to_owned(), "dead 7".to_owned()));
    assert!(test.ttl(claim).await > 50_000, "it is renewed");
    assert_eq!(test.claim(test.reaper).await, mine, "it is read again");
}

#[tokio::test]
async fn what_was_lost_is_written_back_and_what_is_there_stays() {
    let test = Test::start().await;
    let restore =
        |by, all: &[(&str, &str)]| reaping::restore(&test.keys, (test.node, 3), by, REGISTRY_LEASE, records(all));
    test.check(restore(test.reaper, &[("a", "1"), ("b", "2")]), "MINE").await;
    assert_eq!(test.get(test.node_key()).await.as_deref(), Some("dead 0"));
    assert_eq!(test.bucket(3).await, BTreeMap::from([("a", "1"), ("b", "2")].map(|(k, v)| (k.into(), v.into()))));
    test.check(restore(test.other, &[("a", "9"), ("c", "3")]), "TAKEN").await;
    assert_eq!(test.bucket(3).await["a"], "1");
    assert_eq!(test.bucket(3).await["c"], "3");
    // A node that came back with an older state of Redis is dead again.
    test.set(&test.node_key(), "live 7").await;
    test.set(&test.keys.lease(test.node), "1").await;
    test.check(restore(test.reaper, &[]), "MINE").await;
    assert_eq!(test.get(test.node_key()).await.as_deref(), Some("dead 0"));
    assert!(!test.exists(test.keys.lease(test.node)).await);
    // A tombstone that would expire does not.
    test.set(&test.node_key(), "dead 7").await;
    test.run(RedisCommand::new("PEXPIRE", test.node_key()).arg("100000")).await;
    test.check(restore(test.reaper, &[]), "MINE").await;
    assert_eq!(test.get(test.node_key()).await.as_deref(), Some("dead 7"));
    assert_eq!(test.ttl(test.node_key()).await, -1);
}

#[tokio::test]
async fn outcomes_are_noted_and_an_empty_bucket_is_given_back() {
    let test = Test::start().await;
    test.set(&test.node_key(), "dead 7").await;
    for id in ["a", "b", "c"] {
        test.record(3, id, "1").await;
    }
    test.claim(test.reaper).await;
    let finish = |by, keeps, done: &[&str], failed: &[(&str, &str)]| {
        let done: Vec<String> = done.iter().map(|id| (*id).to_owned()).collect();
        reaping::finish(&test.keys, (test.node, 3), by, keeps, &done, records(failed))
    };
    test.check(finish(test.reaper, false, &["a"], &[("b", "2"), ("gone", "2")]), "OK").await;
    assert_eq!(test.bucket(3).await, BTreeMap::from([("b", "2"), ("c", "1")].map(|(k, v)| (k.into(), v.into()))));
    // Whose claim was lost may still say what is over, and nothing else.
    test.check(finish(test.other, false, &["c"], &[("b", "9")]), "OK").await;
    assert_eq!(test.bucket(3).await, BTreeMap::from([("b".to_owned(), "2".to_owned())]));
    test.check(finish(test.reaper, true, &["b"], &[]), "OK").await;
    assert!(test.exists(test.keys.claim(test.node, 3)).await);
    test.check(finish(test.reaper, false, &[], &[]), "EMPTY").await;
    assert!(!test.exists(test.keys.claim(test.node, 3)).await);
}

#[tokio::test]
async fn a_node_is_buried_when_nothing_is_left_and_nobody_else_is_at_it() {
    let test = Test::start().await;
    let remove = || reaping::remove(&test.keys, test.node, test.reaper);
    test.check(remove(), "NO").await;
    test.set(&test.node_key(), "live 7").await;
    test.check(remove(), "NO").await;
    test.set(&test.node_key(), "dead 7").await;
    test.record(3, "a", "1").await;
    test.check(remove(), "NO").await;
    test.run(RedisCommand::new("DEL", test.keys.bucket(test.node, 3))).await;
    test.claim(test.other).await;
    test.check(remove(), "NO").await;
    test.run(RedisCommand::new("DEL", test.keys.claim(test.node, 3))).await;
    test.claim(test.reaper).await;
    test.run(RedisCommand::new("HSET", test.keys.strings(test.node)).arg("0").arg("Mozilla/5.0")).await;
    test.check(remove(), "OK").await;
    assert_eq!(test.get(test.node_key()).await.as_deref(), Some("dead 7"), "a tombstone");
    assert!(test.ttl(test.node_key()).await > 3_000_000);
    assert!(!test.exists(test.keys.claim(test.node, 3)).await);
    assert!(!test.exists(test.keys.strings(test.node)).await);
}

fn names(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

impl Test {
    /// Names that `overdue` answers, in order, and its word.
    async fn overdue(&self, age: Duration) -> (String, Vec<String>) {
        let (word, mut names): (String, Vec<String>) = self.ask(reaping::overdue(&self.keys, self.node, age)).await;
        names.sort();
        (word, names)
    }

    async fn unreadable(&self) -> BTreeMap<String, String> {
        self.ask(RedisCommand::new("HGETALL", self.keys.unreadable(self.node))).await
    }
}

#[tokio::test]
async fn records_are_set_aside_by_who_has_the_claim_and_the_node_is_buried_without_them() {
    let test = Test::start().await;
    test.set(&test.node_key(), "dead 7").await;
    for id in ["a", "b", "c"] {
        test.record(3, id, "record").await;
    }
    test.run(RedisCommand::new("HSET", test.keys.strings(test.node)).arg("0").arg("Mozilla/5.0")).await;
    let set_aside = |by, all: &[&str]| reaping::set_aside(&test.keys, (test.node, 3), by, &names(all));
    test.check(set_aside(test.reaper, &["a"]), "LOST").await;
    test.claim(test.reaper).await;
    test.check(set_aside(test.other, &["a"]), "LOST").await;
    assert_eq!((test.bucket(3).await.len(), test.unreadable().await.len()), (3, 0));
    test.check(set_aside(test.reaper, &["a", "gone", "b"]), "OK").await;
    assert_eq!(test.bucket(3).await.keys().collect::<Vec<_>>(), ["c"]);
    let mut unreadable = test.unreadable().await;
    assert!(unreadable.remove("").unwrap().parse::<u64>().unwrap() > 0, "when");
    assert_eq!(unreadable, BTreeMap::from([("a", "record"), ("b", "record")].map(|(k, v)| (k.into(), v.into()))));

    test.check(reaping::remove(&test.keys, test.node, test.reaper), "NO").await;
    test.run(RedisCommand::new("DEL", test.keys.bucket(test.node, 3))).await;
    test.check(reaping::remove(&test.keys, test.node, test.reaper), "OK").await;
    assert!(test.ttl(test.node_key()).await > 3_000_000);
    assert!(test.exists(test.keys.strings(test.node)).await, "what was set aside may refer to them");
    assert_eq!(test.unreadable().await.len(), 3);
}

#[tokio::test]
async fn what_was_set_aside_is_lost_when_its_time_is_over_and_not_before() {
    let test = Test::start().await;
    assert_eq!(test.overdue(Duration::ZERO).await, ("NONE".to_owned(), vec![]));
    test.set(&test.node_key(), "dead 7").await;
    test.record(3, "a", "record").await;
    test.record(3, "b", "record").await;
    test.run(RedisCommand::new("HSET", test.keys.strings(test.node)).arg("0").arg("Mozilla/5.0")).await;
    test.claim(test.reaper).await;
    test.check(reaping::set_aside(&test.keys, (test.node, 3), test.reaper, &names(&["a"])), "OK").await;
    let (word, kept) = test.overdue(REGISTRY_LEASE).await;
    assert_eq!((word.as_str(), kept.contains(&"1".to_owned())), ("KEPT", true), "{kept:?}");
    assert_eq!(test.overdue(Duration::ZERO).await, ("LOST".to_owned(), vec![String::new(), "a".to_owned()]));
    assert!(test.unreadable().await.is_empty());
    assert!(test.exists(test.keys.strings(test.node)).await, "a record that is left may refer to them");
    test.check(reaping::set_aside(&test.keys, (test.node, 3), test.reaper, &names(&["b"])), "OK").await;
    assert_eq!(test.overdue(Duration::ZERO).await.0, "LOST");
    assert!(!test.exists(test.keys.strings(test.node)).await);
}

#[tokio::test]
async fn what_can_be_read_after_all_goes_back_to_its_bucket_and_is_claimed() {
    let test = Test::start().await;
    test.set(&test.node_key(), "dead 7").await;
    for id in ["a", "b"] {
        test.record(3, id, "record").await;
    }
    test.claim(test.reaper).await;
    test.check(reaping::set_aside(&test.keys, (test.node, 3), test.reaper, &names(&["a", "b"])), "OK").await;
    test.run(RedisCommand::new("DEL", test.keys.claim(test.node, 3))).await;
    // Its tombstone is gone.
    test.run(RedisCommand::new("DEL", test.node_key())).await;
    let revive = |by, all: &[&str]| reaping::revive(&test.keys, (test.node, 3), by, REGISTRY_LEASE, &names(all));
    test.check(revive(test.reaper, &["a", "gone"]), "MINE").await;
    assert_eq!(test.get(test.node_key()).await.as_deref(), Some("dead 0"));
    assert_eq!(test.bucket(3).await, BTreeMap::from([("a".to_owned(), "record".to_owned())]));
    assert_eq!(test.unreadable().await.len(), 2);
    test.check(revive(test.other, &["b"]), "TAKEN").await;
    assert_eq!(test.bucket(3).await.len(), 2);
    assert!(!test.exists(test.keys.unreadable(test.node)).await, "nothing is left of it");
    // A tombstone that would expire does not.
    test.set(&test.node_key(), "dead 7").await;
    test.run(RedisCommand::new("PEXPIRE", test.node_key()).arg("100000")).await;
    test.check(revive(test.reaper, &[]), "MINE").await;
    assert_eq!((test.get(test.node_key()).await.as_deref(), test.ttl(test.node_key()).await), (Some("dead 7"), -1));
}

#[tokio::test]
async fn a_dead_node_is_taken_over_although_redis_has_no_memory_left() {
    let test = Test::start().await;
    test.record(3, "a", "1").await;
    test.record(3, "b", "1").await;
    test.set(&test.node_key(), "live 7").await;
    test.run(RedisCommand::new("CONFIG", "SET".to_owned()).arg("maxmemory").arg("1")).await;
    let full = RedisCommand::new("SET", "t:more".to_owned()).arg("1");
    assert!(test.redis.run_one(full).await.is_err(), "it is full");
    test.check(reaping::condemn(&test.keys, test.node, NodeKey::Live { epoch: 7 }, LATER), "OK").await;
    assert_eq!(test.claim(test.reaper).await.0, "MINE");
    assert_eq!(test.keep(test.reaper).await.0, "OK");
    let finish =
        |failed: &[(&str, &str)]| reaping::finish(&test.keys, (test.node, 3), test.reaper, false, &[], records(failed));
    test.check(finish(&[("b", "2")]), "OK").await;
    let restore = reaping::restore(&test.keys, (test.node, 3), test.reaper, REGISTRY_LEASE, records(&[("c", "1")]));
    test.check(restore, "MINE").await;
    assert_eq!(test.bucket(3).await.len(), 3);
    test.check(reaping::set_aside(&test.keys, (test.node, 3), test.reaper, &names(&["c"])), "OK").await;
    test.check(reaping::revive(&test.keys, (test.node, 3), test.reaper, REGISTRY_LEASE, &names(&["c"])), "MINE").await;
    assert_eq!(test.bucket(3).await.len(), 3);
}
