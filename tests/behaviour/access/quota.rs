//! Quotas that several nodes count together: real Redis, real processes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidegate_access::usage::{QuotaKey, QuotaStore as _, RedisQuotaStore};
use tidegate_connections::redis_client::{AttachedRedis, Attachment, Keys, RedisCommand, RedisConnection, read};
use tidegate_core::clock::Timestamp;
use tidegate_core::id::NodeId;
use tidegate_telemetry::Metrics;
use tidegate_testing::{RedisServer, TestBackend, TestClient, Tidegate, connect, eventually, raw, refused};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The store of one node, without the rest of it.
struct Node {
    store: Arc<RedisQuotaStore>,
    redis: Arc<AttachedRedis>,
    _stop: DropGuard,
}

impl Node {
    async fn start(server: &RedisServer) -> Self {
        let gauge = Metrics::new("memory").registry();
        let redis = Arc::new(AttachedRedis::new(Keys::new("t"), gauge));
        let store = Arc::new(RedisQuotaStore::new(Arc::clone(&redis)));
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(Arc::clone(&store).run(stop.clone()));
        let node = Node { store, redis, _stop: stop.drop_guard() };
        node.attach(server, 1).await;
        node
    }

    async fn attach(&self, server: &RedisServer, serial: u64) {
        self.attach_to(server.connection().await, serial);
    }

    fn attach_to(&self, connection: RedisConnection, serial: u64) {
        self.redis.attach(Attachment { connection, node: NodeId::random(), epoch: 1, serial }, false);
    }

    /// Returns how many of `count` uses, all at once, are allowed.
    async fn take(&self, count: usize, limit: u64) -> usize {
        let key = key();
        let taken = join_all((0..count).map(|_| self.store.take(&key, limit))).await;
        taken.into_iter().filter(Result::is_ok).count()
    }
}

fn key() -> Arc<QuotaKey> {
    let (begins, ends) = (Timestamp(0), Timestamp(4_102_444_800_000));
    Arc::new(QuotaKey { plan: "basic".into(), api_key: "mobile".into(), period: "2026-11".to_owned(), begins, ends })
}

const NAME: &str = "t:quota:{basic/mobile}:2026-11";

async fn count(server: &RedisServer) -> u64 {
    read::<Option<u64>>(server.run(&["GET", NAME]).await).expect("a number").unwrap_or(0)
}

#[tokio::test]
async fn two_nodes_take_a_quota_to_its_last_and_not_further() {
    let server = RedisServer::start().await;
    let (one, other) = (Node::start(&server).await, Node::start(&server).await);
    let (of_one, of_other) = tokio::join!(one.take(300, 400), other.take(300, 400));
    assert_eq!(of_one + of_other, 400);
    assert_eq!(count(&server).await, 400);
    // Started anew, even if they could not say goodbye.
    drop((one, other));
    let (one, other) = (Node::start(&server).await, Node::start(&server).await);
    assert_eq!((one.take(5, 400).await, other.take(5, 401).await), (0, 1), "the limit was raised by one");
    let lasts: i64 = read(server.run(&["PTTL", NAME]).await).expect("a number");
    assert!(lasts > 0, "the count ends by itself");
}

#[tokio::test]
async fn a_redis_user_who_may_do_nothing_dangerous_counts_with_the_others() {
    let rights = ["--user", "tidegate", "on", ">right", "~t:*", "+@all", "-@dangerous"];
    let server = RedisServer::start_with(&rights).await;
    let (one, other) = (Node::start(&server).await, Node::start(&server).await);
    let mut settings = server.settings();
    settings.username = Some("tidegate".to_owned());
    settings.password = Some("right".to_owned().into());
    one.attach_to(RedisConnection::open(&settings, Duration::from_secs(10)).await.expect("a connection"), 2);
    assert_eq!((one.take(3, 5).await, other.take(3, 5).await), (3, 2));
    assert_eq!(count(&server).await, 5);
    let lasts: i64 = read(server.run(&["PTTL", NAME]).await).expect("a number");
    assert!(lasts > 0, "the count ends by itself");
}

#[tokio::test]
async fn far_from_its_end_a_quota_is_taken_ahead_and_what_is_left_is_given_back() {
    const LIMIT: u64 = 1_010_000;
    let server = RedisServer::start().await;
    let (one, other) = (Node::start(&server).await, Node::start(&server).await);
    // One after the other, as a client sends: a round trip for each would show.
    for _ in 0..3000 {
        assert_eq!((one.take(1, LIMIT).await, other.take(1, LIMIT).await), (1, 1));
    }
    let stats: String = read(server.run(&["INFO", "commandstats"]).await).expect("text");
    let calls =
        stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok());
    let calls: u64 = calls.expect("the script ran");
    assert!(calls < 600, "{calls} questions for 6000 uses");
    assert!(count(&server).await > 6000, "some are taken ahead");
    other.store.leave().await;
    eventually("what lies unused is given back", async || count(&server).await == 6000).await;
    one.store.leave().await;
    assert_eq!(count(&server).await, 6000);
}

#[tokio::test]
async fn without_redis_nodes_go_on_and_the_difference_is_written_when_it_is_back() {
    let mut server = RedisServer::start().await;
    let node = Node::start(&server).await;
    assert_eq!(node.take(10, 100).await, 10);
    server.kill();
    node.redis.detach();
    let began = Instant::now();
    assert_eq!(node.take(60, 100).await, 60);
    assert_eq!(node.take(60, 100).await, 30, "by itself a node lets no more through than the quota");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for a Redis that is away");
    // It comes back without its data.
    server.restart().await;
    node.attach(&server, 2).await;
    eventually("the count is written back", async || count(&server).await == 100).await;
    let other = Node::start(&server).await;
    assert_eq!(other.take(5, 100).await, 0);
    assert_eq!(node.take(5, 103).await, 3);
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up_for_long_and_nothing_is_counted_twice() {
    let server = RedisServer::start().await;
    let node = Node::start(&server).await;
    assert_eq!(node.take(10, 100).await, 10);
    let hung = server.connection().await;
    let (_, taken) = tokio::join!(hung.run_one(RedisCommand::new("DEBUG", "SLEEP".to_owned()).arg("2")), async {
        let began = Instant::now();
        let taken = node.take(50, 100).await + node.take(50, 100).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        taken
    });
    assert_eq!(taken, 90);
    eventually("all is counted", async || count(&server).await == 100).await;
    assert_eq!(node.take(5, 100).await, 0);
}

fn yaml(backend: &str, redis: &str) -> String {
    format!(
        "
listeners:
  public: {{ address: '127.0.0.1:0', connectionsApi: NONE }}
  internal: {{ address: '127.0.0.1:0' }}
registry: {{ type: redis, url: '{redis}' }}
cluster: {{ address: '127.0.0.1:0', secret: a secret of sixteen characters, leaseMillis: 3000 }}
apiKeys: {{ mobile: {{ value: key-of-mobile }} }}
usagePlans: {{ basic: {{ apiStages: [ 'chat:prod' ], apiKeys: [ mobile ], quota: {{ limit: 12, period: MONTH }} }} }}
apis:
  chat:
    routeSelectionExpression: $request.body.action
    integrations:
      backend: {{ integrationType: AWS_PROXY, integrationUri: {backend} }}
    routes:
      $connect: {{ target: integrations/backend, apiKeyRequired: true }}
      $default: {{ target: integrations/backend, routeResponseSelectionExpression: $default }}
    stages: {{ prod: {{}} }}
"
    )
}

const KEY: [(&str, &str); 1] = [("x-api-key", "key-of-mobile")];

async fn join(node: &Tidegate, backend: &TestBackend) -> (TestClient, String) {
    let client = connect(&format!("ws://{}/prod", node.public), &KEY).await;
    let connected = loop {
        let got = backend.next_call().await;
        if got.event_type() == "CONNECT" {
            break got.event();
        }
    };
    (client, connected["requestContext"]["connectionId"].as_str().expect("an id").to_owned())
}

async fn call(node: &Tidegate, method: &str, id: &str) -> String {
    let path = format!("/prod/@connections/{}", id.replace('=', "%3D"));
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi");
    raw(node.internal, request.as_bytes()).await
}

#[tokio::test]
async fn every_use_counts_once_wherever_it_lands_and_a_restart_forgets_none() {
    let (mut redis, backend) = (RedisServer::start().await, TestBackend::saying_hello().await);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tidegate.yaml");
    std::fs::write(&file, yaml(&backend.url(), &redis.url())).expect("a file");
    let serve = async || Tidegate::serve(&file, &[]).await;
    let (one, other) = (serve().await, serve().await);
    // 1 and 2: two clients connect.
    let (mut first, first_id) = join(&one, &backend).await;
    let (mut second, second_id) = join(&other, &backend).await;
    // 3 and 4: each sends.
    for client in [&mut first, &mut second] {
        client.send("x").await;
        assert_eq!(client.next_text().await, "hello");
    }
    // 5 and 6: a post on the node that holds the connection, and one that is forwarded, as soon as the nodes are linked.
    assert!(call(&one, "POST", &first_id).await.starts_with("HTTP/1.1 200"));
    eventually("a post is forwarded", async || {
        let answer = call(&one, "POST", &second_id).await;
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 503"), "{answer}");
        answer.starts_with("HTTP/1.1 200")
    })
    .await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.next_text().await, "hi");
    }
    // 7: a description that is forwarded.
    assert!(call(&one, "GET", &second_id).await.starts_with("HTTP/1.1 200"));
    // Both die without a word.
    drop((one, other));
    let (one, other) = (serve().await, serve().await);
    // 8 to 12, and no further.
    let (mut third, third_id) = join(&one, &backend).await;
    let (mut fourth, _) = join(&other, &backend).await;
    for _ in 0..2 {
        third.send("x").await;
        assert_eq!(third.next_text().await, "hello");
    }
    fourth.send("x").await;
    assert_eq!(fourth.next_text().await, "hello");
    for client in [&mut third, &mut fourth] {
        client.send("x").await;
        assert!(client.next_text().await.starts_with(r#"{"message": "Limit Exceeded""#));
    }
    for node in [&one, &other] {
        let url = format!("ws://{}/prod", node.public);
        assert_eq!(refused(&url, &KEY).await, (429, "Limit Exceeded".to_owned()));
    }
    for method in ["POST", "GET"] {
        eventually("a forwarded call is refused as the owner would", async || {
            let answer = call(&other, method, &third_id).await;
            assert!(answer.starts_with("HTTP/1.1 429") || answer.starts_with("HTTP/1.1 503"), "{answer}");
            answer.starts_with("HTTP/1.1 429") && answer.contains("LimitExceededException")
        })
        .await;
    }
    let keys = redis.keys().await;
    let name = keys.iter().find(|key| key.contains("quota")).expect("a count");
    let used: u64 =
        read(redis.connection().await.run_one(RedisCommand::new("GET", name.clone())).await.expect("a count"))
            .expect("a number");
    assert_eq!(used, 12, "{name}");
    // A connection can always be closed.
    assert!(call(&other, "DELETE", &third_id).await.starts_with("HTTP/1.1 204"));
    redis.kill();
}
