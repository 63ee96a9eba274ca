//! Redis gives trouble while clients chat: nobody notices but operators.

use std::time::Duration;

use tidegate_connections::redis_client::RedisCommand;
use tidegate_testing::{Crowd, Nodes, Plan, Session, Visitor, pass};

/// Environment variable with the time for which Redis is down, in seconds; several leases by default.
const OUTAGE_VARIABLE: &str = "TIDEGATE_TEST_OUTAGE_SECONDS";

/// Lines at level WARN that a node may write through all troubles of a test: each change of its state is one.
const WARNINGS_MAX: usize = 100;

/// Checks the crowd, the visitors and the nodes at the end of a test.
async fn check_out(mut nodes: Nodes, crowd: Crowd, visits: Vec<Session>) {
    nodes.ledger.holds_alive(&crowd.staying(&nodes.ledger));
    let mut sessions = crowd.leave().await;
    assert!(sessions.iter().all(|session| session.left), "a client was dropped");
    sessions.extend(visits);
    nodes.ledger.pushed_all().await;
    nodes.ledger.balances(&Default::default()).await;
    nodes.ledger.pushes_arrived(&sessions);
    // Whoever goes may be gone when something is said to them. A machine without time may lose a link for a moment.
    let pushes = nodes.ledger.pushes();
    let failed: Vec<_> = pushes.iter().filter(|push| !matches!(push.status, Some(200 | 410))).collect();
    assert!(failed.len() * 100 <= pushes.len(), "{} of {}: {failed:?}", failed.len(), pushes.len());
    for node in &mut nodes.all {
        let lines = node.stop().await;
        let warnings: Vec<_> = lines.iter().filter(|line| line.contains("\"WARN\"")).collect();
        assert!(warnings.len() <= WARNINGS_MAX, "{warnings:#?}");
    }
    assert_eq!(nodes.redis.keys().await, Vec::<String>::new(), "all have left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_for_long_and_restarted_empty_costs_nobody_anything() {
    let outage = std::env::var(OUTAGE_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let mut nodes = Nodes::start(Plan { lease: Duration::from_secs(2), ..Plan::default() }).await;
    let crowd = Crowd::gather(500, 50, &nodes.ledger, &nodes.entrances).await;
    nodes.redis.kill();
    for node in &nodes.all {
        node.readyz(200, "degraded").await;
    }
    let chatted = nodes.ledger.pushes().len();
    // The test is of an outage that lasts.
    pass(Duration::from_secs(outage)).await;
    assert!(nodes.ledger.pushes().len() > chatted + 500, "they chat on");
    let late = Visitor::enter(nodes.all[0].public(), "late", &nodes.ledger).await;
    nodes.redis.restart().await;
    for node in &nodes.all {
        node.readyz(200, "\"ready\"").await;
    }
    let mut living = crowd.staying(&nodes.ledger);
    living.insert(late.id.clone());
    nodes.ledger.holds_alive(&living);
    // What was begun, ended and kept while Redis was away: all is as it is now.
    assert!(
        nodes.recorded().await >= living.len() as u64,
        "the mirror is whole when all nodes say that they are ready"
    );
    check_out(nodes, crowd, vec![late.leave().await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_slow_full_read_only_or_locked_is_said_and_passes() {
    let nodes = Nodes::start(Plan::default()).await;
    let crowd = Crowd::gather(100, 20, &nodes.ledger, &nodes.entrances).await;
    let (redis, number) = (&nodes.redis, std::cell::Cell::new(0));
    let trouble = async |said: &str| {
        for node in &nodes.all {
            node.readyz(200, "degraded").await;
            node.readyz(200, said).await;
        }
        nodes.ledger.more_messages(100).await;
        // New clients come in.
        number.set(number.get() + 1);
        let visitor = Visitor::enter(nodes.all[0].public(), &format!("late-{}", number.get()), &nodes.ledger).await;
        assert_eq!(nodes.ledger.push(&visitor.id, "welcome").await.status, Some(200));
        visitor.leave().await
    };
    let well = async || {
        for node in &nodes.all {
            node.readyz(200, "\"ready\"").await;
        }
    };

    // Slow: it answers nothing for more than two leases, and never breaks a connection.
    redis.signal("STOP");
    let mut visits = vec![trouble("in time").await];
    redis.signal("CONT");
    well().await;

    // Full: nothing new can be written, old keys may be renewed.
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    visits.push(trouble("used up its memory").await);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    well().await;

    // A replica of nobody who is there.
    redis.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    visits.push(trouble("read-only replica").await);
    redis.run(&["REPLICAOF", "NO", "ONE"]).await;
    well().await;

    // Another password than the nodes have.
    let opened = redis.connection().await;
    redis.run(&["CONFIG", "SET", "requirepass", "other"]).await;
    opened.run_one(RedisCommand::new("CLIENT", "KILL".into()).arg("TYPE").arg("normal")).await.unwrap();
    visits.push(trouble("user name or the password").await);
    opened.run_one(RedisCommand::new("CONFIG", "SET".into()).arg("requirepass").arg("")).await.unwrap();
    well().await;

    check_out(nodes, crowd, visits).await;
}
