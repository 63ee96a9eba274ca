//! Redis slow, away, empty, full, read-only, locked: the state is clear, nothing is lost, and it passes without a restart.

use std::time::Duration;

use tidegate_connections::redis_client::{Keys, Password, RedisCommand, RedisConnection, read};
use tidegate_connections::registry::{NotRecorded, WhenUnavailable};
use tidegate_connections::session::Closing;
use tidegate_testing::{REGISTRY_LEASE, RedisServer, RegistryNode, RegistryNodeOptions, connection, eventually, pass};
use tokio::time::{Instant, timeout};

use crate::registry::SOON;

#[tokio::test]
async fn redis_killed_and_restarted_empty_is_written_back() {
    let mut server = RedisServer::start().await;
    let node =
        RegistryNode::launch(RegistryNodeOptions { rebuild_per_second: 5000, ..RegistryNodeOptions::new(&server) });
    node.is("attached").await;
    let mut connections = Vec::new();
    for _ in 0..1500 {
        connections.push(node.open().await);
    }
    node.is_replicated(&server).await;

    server.kill();
    node.is("detached").await;
    // Life goes on: some end, some begin.
    for connection in &connections[..100] {
        assert!(node.registry.end(&connection.id, Closing::lost()));
    }
    for connection in &connections[..50] {
        assert!(node.registry.settle(&connection.id));
    }
    let begun = Instant::now();
    for _ in 0..100 {
        node.open().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for a Redis that is away");

    server.restart().await;
    let back = Instant::now();
    node.is("attached").await;
    println!("1550 records were written back within {:?}", back.elapsed());
    node.is_replicated(&server).await;
    assert_eq!(node.registry.len(), 1550);
    assert!(node.metrics.encode().contains("tidegate_registry_state{state=\"attached\"} 1"));
}

#[tokio::test]
async fn redis_emptied_under_our_feet_is_written_back() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    for _ in 0..50 {
        node.open().await;
    }
    node.is_replicated(&server).await;
    let epoch = server.connection().await;
    let key = || RedisCommand::new("GET", node.replica.keys().node(node.id()));
    let before = epoch.run_one(key()).await.expect("a key");
    let id = node.id();
    server.run(&["FLUSHALL", "SYNC"]).await;
    // A write that comes before the next heartbeat finds no node key, and leaves nothing behind.
    let late = node.open().await;
    node.is_replicated(&server).await;
    assert_eq!(node.id(), id, "the same node");
    assert_ne!(epoch.run_one(key()).await.expect("a key"), before, "under a new epoch");
    assert!(node.records(&server).await.contains_key(&late.id));
    assert!(server.keys().await.contains(&"t:nodes".to_owned()));
}

#[tokio::test]
async fn a_broken_connection_alone_is_replaced() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    node.open().await;
    node.is_replicated(&server).await;
    for _ in 0..3 {
        server.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        node.open().await;
        node.is_replicated(&server).await;
    }
    assert_eq!(node.registry.len(), 4);
    assert_eq!(node.state().name(), "attached");
}

#[tokio::test]
async fn a_slow_redis_holds_nobody_up_for_long() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    for _ in 0..20 {
        node.open().await;
    }
    node.is_replicated(&server).await;
    server.signal("STOP");
    let begun = Instant::now();
    node.open().await;
    // Redis has a sixth of the lease to answer; the rest is for a busy machine.
    assert!(begun.elapsed() < REGISTRY_LEASE, "{:?}", begun.elapsed());
    // The writer notices first, then the heartbeat.
    eventually("the state says so", async || matches!(node.state().name(), "degraded" | "detached")).await;
    server.signal("CONT");
    node.is("attached").await;
    node.is_replicated(&server).await;
    assert_eq!(node.registry.len(), 21);
}

#[tokio::test]
async fn with_refuse_a_connection_needs_its_record() {
    let mut server = RedisServer::start().await;
    let options =
        RegistryNodeOptions { when_unavailable: WhenUnavailable::Refuse, ..RegistryNodeOptions::new(&server) };
    let node = RegistryNode::launch(options);
    node.is("attached").await;
    node.open().await;
    server.kill();
    node.is("detached").await;
    let refused = connection(&node.registry, None);
    node.registry.connect(&refused, None);
    assert_eq!(node.registry.record(&refused.id).await, Err(NotRecorded));
    node.registry.refuse(&refused.id);
    server.restart().await;
    node.is("attached").await;
    node.open().await;
    node.is_replicated(&server).await;
}

#[tokio::test]
async fn a_full_redis_keeps_the_node_and_takes_deletes() {
    const LONGER_THAN_A_LEASE: Duration = REGISTRY_LEASE.saturating_add(Duration::from_secs(1));
    let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]).await;
    let node = RegistryNode::start(&server).await;
    let mut connections = Vec::new();
    for _ in 0..500 {
        connections.push(node.open().await);
    }
    node.is_replicated(&server).await;
    server.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    // Accepted without a record.
    let unrecorded = node.open().await;
    node.is("degraded").await;
    assert!(node.state().to_string().contains("used up its memory"), "{}", node.state());
    for connection in &connections {
        node.registry.end(&connection.id, Closing::lost());
        node.registry.settle(&connection.id);
    }
    eventually("deletes go through", async || node.records(&server).await.is_empty()).await;
    assert_eq!(node.state().name(), "degraded");
    // The lease is renewed all the while.
    pass(LONGER_THAN_A_LEASE).await;
    assert!(server.keys().await.contains(&node.replica.keys().lease(node.id())));
    server.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    node.is("attached").await;
    node.is_replicated(&server).await;
    assert!(node.records(&server).await.contains_key(&unrecorded.id));
}

#[tokio::test]
async fn a_read_only_replica_is_told_and_got_over() {
    let server = RedisServer::start().await;
    let primary = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    node.open().await;
    node.is_replicated(&server).await;
    // Without data of its own it empties itself: as a failover to a replica that knew nothing.
    let port = primary.port().to_string().leak();
    server.run(&["REPLICAOF", "127.0.0.1", port]).await;
    node.open().await;
    eventually("the state says so", async || node.state().to_string().contains("read-only")).await;
    server.run(&["REPLICAOF", "NO", "ONE"]).await;
    node.is("attached").await;
    node.is_replicated(&server).await;
    assert_eq!(node.registry.len(), 2);
}

#[tokio::test]
async fn a_wrong_password_is_told_and_never_shown() {
    let server = RedisServer::start_with(&["--requirepass", "right one"]).await;
    let mut options = RegistryNodeOptions::new(&server);
    options.redis.password = Some(Password::from("hunter2".to_owned()));
    let node = RegistryNode::launch(options);
    eventually("the state says so", async || node.state().to_string().contains("the password")).await;
    assert_eq!(node.state().name(), "starting");
    assert!(!node.state().to_string().contains("hunter2"));
    let refused = connection(&node.registry, None);
    node.registry.connect(&refused, None);
    assert_eq!(node.registry.record(&refused.id).await, Err(NotRecorded), "not registered yet");
    node.registry.refuse(&refused.id);

    let mut settings = server.settings();
    settings.password = Some(Password::from("right one".to_owned()));
    let redis = RedisConnection::open(&settings, SOON).await.expect("a connection");
    let set = RedisCommand::new("CONFIG", "SET".into()).arg("requirepass").arg("hunter2");
    redis.run_one(set).await.expect("an answer");
    node.is("attached").await;
    node.open().await;
}

#[tokio::test]
async fn where_info_is_denied_a_new_connection_counts_as_a_restart_of_redis() {
    let rights = ["--user", "tidegate", "on", ">right", "~t:*", "+@all", "-@dangerous"];
    let server = RedisServer::start_with(&rights).await;
    let mut options = RegistryNodeOptions::new(&server);
    options.redis.username = Some("tidegate".to_owned());
    options.redis.password = Some(Password::from("right".to_owned()));
    let node = RegistryNode::launch(options);
    node.is("attached").await;
    let id = node.open().await.id;
    node.is_replicated(&server).await;
    // As a restart that lost the last write leaves it: the record is there, and is another.
    let redis = server.connection().await;
    let bucket = || node.replica.keys().bucket(node.id(), Keys::bucket_of(&id));
    let record = async || {
        let get = RedisCommand::new("HGET", bucket()).arg(id.to_string());
        read::<Vec<u8>>(redis.run_one(get).await.expect("an answer")).expect("bytes")
    };
    let good = record().await;
    redis.run_one(RedisCommand::new("HSET", bucket()).arg(id.to_string()).arg("older")).await.expect("an answer");
    redis.run_one(RedisCommand::new("CLIENT", "KILL".into()).arg("USER").arg("tidegate")).await.expect("an answer");
    eventually("the record is written anew", async || record().await == good).await;
}

#[tokio::test]
async fn a_node_that_starts_while_redis_is_away_waits_and_says_so() {
    let mut server = RedisServer::stopped(&[]);
    let node = RegistryNode::launch(RegistryNodeOptions::new(&server));
    eventually("the state says so", async || node.state().to_string().contains("nothing listens")).await;
    assert_eq!(node.state().name(), "starting");
    server.restart().await;
    node.is("attached").await;
    node.open().await;
    node.is_replicated(&server).await;
}

#[tokio::test]
async fn writing_back_is_paced_and_new_connections_do_not_wait_for_it() {
    let mut server = RedisServer::start().await;
    let node =
        RegistryNode::launch(RegistryNodeOptions { rebuild_per_second: 500, ..RegistryNodeOptions::new(&server) });
    node.is("attached").await;
    for _ in 0..1500 {
        node.open().await;
    }
    node.is_replicated(&server).await;
    server.restart().await;
    node.is("rebuilding").await;
    let begun = Instant::now();
    timeout(Duration::from_secs(1), node.open()).await.expect("no waiting");
    node.is("attached").await;
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
    node.is_replicated(&server).await;
}
