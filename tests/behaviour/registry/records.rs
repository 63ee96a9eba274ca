//! Records: when they are written, and how they are read back.

use std::sync::Arc;

use tidegate_connections::cluster::Directory;
use tidegate_connections::redis_client::{Keys, RedisCommand, read};
use tidegate_connections::registry::record::RecordState;
use tidegate_connections::registry::{Query, RegistryState};
use tidegate_connections::session::Closing;
use tidegate_core::id::ConnectionId;
use tidegate_core::principal::{AuthorizerContext, Principal};
use tidegate_core::request_context::Connection;
use tidegate_testing::{BROWSER, RedisServer, RegistryNode, connection, eventually, outbox};

#[tokio::test]
async fn a_connection_is_recorded_before_its_connect_is_sent_and_gone_after_its_disconnect() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let connection = connection(&node.registry, Some(BROWSER));
    node.registry.connect(&connection, None);
    node.registry.record(&connection.id).await.expect("a record");
    let records = node.records(&server).await;
    let record = &records[&connection.id];
    assert_eq!(record.state, RecordState::Connecting);
    assert_eq!(format!("{:?}", record.connection), format!("{connection:?}"));

    node.registry.open(&connection.id, outbox());
    assert!(node.replica.flush().await);
    assert_eq!(node.records(&server).await[&connection.id].state, RecordState::Open);

    node.registry.end(&connection.id, Closing::deleted(4001, "kicked ä"));
    assert!(node.replica.flush().await);
    let ended = RecordState::Ended { code: 4001, reason: "kicked ä".into(), attempt: 1 };
    assert_eq!(node.records(&server).await[&connection.id].state, ended);

    node.registry.settle(&connection.id);
    assert!(node.replica.flush().await);
    assert!(node.records(&server).await.is_empty());
    node.leave().await;
    assert_eq!(server.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn who_is_on_a_connection_is_written_anew_when_it_changes() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let connection = node.open().await;
    assert!(node.replica.flush().await);
    let claims = |exp: &str| AuthorizerContext::Jwt { claims: Box::new([("exp".into(), exp.into())]), scopes: None };
    for exp in ["1790000600", "1790000900"] {
        let principal = Principal { authorizer: Some(claims(exp)), ..Principal::default() };
        connection.principal.store(Some(Arc::new(principal.clone())));
        node.registry.rewrite(&connection.id);
        assert!(node.replica.flush().await);
        let record = &node.records(&server).await[&connection.id];
        assert_eq!(record.connection.principal.load().as_deref(), Some(&principal));
    }
}

#[tokio::test]
async fn many_connections_at_once_share_their_writes() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let before = commands(&server).await;
    let connections: Vec<_> = (0..2000)
        .map(|_| {
            let connection = connection(&node.registry, Some(BROWSER));
            node.registry.connect(&connection, None);
            connection
        })
        .collect();
    let records = connections.iter().map(|connection| node.registry.record(&connection.id));
    assert!(futures_util::future::join_all(records).await.iter().all(Result::is_ok));
    let calls = commands(&server).await - before;
    println!("2000 connections were recorded by {calls} scripts");
    assert!(calls < 100, "{calls}");
    assert_eq!(node.records(&server).await.len(), 2000);
}

#[tokio::test]
async fn one_connection_at_a_time_costs_one_awaited_round_trip() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let (mut times, before) = (Vec::new(), commands(&server).await);
    for _ in 0..300 {
        let connection = connection(&node.registry, Some(BROWSER));
        let begun = tokio::time::Instant::now();
        node.registry.connect(&connection, None);
        node.registry.record(&connection.id).await.expect("a record");
        times.push(begun.elapsed());
        node.registry.open(&connection.id, outbox());
        assert!(node.replica.flush().await);
        node.registry.end(&connection.id, Closing::lost());
        assert!(node.replica.flush().await);
        node.registry.settle(&connection.id);
        assert!(node.replica.flush().await);
    }
    times.sort();
    let writes = commands(&server).await - before;
    println!("recorded within {:?} at the median, {:?} at the 99th percentile", times[150], times[296]);
    // Two for the connect and two for the disconnect; the heartbeats come on top.
    assert!((1200..1250).contains(&writes), "{writes}");
}

/// Scripts that Redis has run.
async fn commands(server: &RedisServer) -> u64 {
    let info: String = read(server.run(&["INFO", "commandstats"]).await).expect("text");
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or("0");
    line.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_record_that_cannot_be_read_takes_no_other_with_it() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let (first, second, third) = (node.open().await, node.open().await, node.open().await);
    assert!(node.replica.flush().await);
    let redis = server.connection().await;
    let key = |id| node.replica.keys().bucket(node.id(), Keys::bucket_of(id));
    for (id, record) in [(&first.id, &[99, 1, 2][..]), (&second.id, &[1, 0xc1][..])] {
        let call = RedisCommand::new("HSET", key(id)).arg(id.to_string()).arg(record);
        redis.run_one(call).await.expect("an answer");
    }
    let directory = Directory::new(redis, node.replica.keys().clone());
    let page = directory.connections(&Query::default(), None, 100).await.expect("a page");
    let shown: Vec<&str> = page.connections.iter().map(|c| c.connection_id.as_str()).collect();
    assert_eq!(shown, [third.id.to_string()]);
}

#[tokio::test]
async fn a_clients_certificate_is_recorded_once_for_all_its_connections() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let issued = rcgen::generate_simple_self_signed(["partner.test".to_owned()]).expect("a certificate");
    let client_cert = tidegate_http::tls::client_cert(issued.cert.der()).map(Arc::new);
    assert!(client_cert.is_some());
    for _ in 0..2 {
        let connection = Arc::into_inner(connection(&node.registry, None)).expect("nobody else has it");
        let connection = Arc::new(Connection { client_cert: client_cert.clone(), ..connection });
        assert!(node.registry.connect(&connection, None));
        node.registry.record(&connection.id).await.expect("a record");
    }
    // Whoever takes over sends it with the `$disconnect`.
    let records = node.records(&server).await;
    assert_eq!(records.len(), 2);
    assert!(records.values().all(|record| record.connection.client_cert == client_cert), "{records:?}");
    let length = RedisCommand::new("HLEN", node.replica.keys().strings(node.id()));
    let texts: u64 = read(server.connection().await.run_one(length).await.expect("an answer")).expect("a number");
    assert_eq!(texts, 1);
}

#[tokio::test]
async fn where_a_client_came_from_is_recorded_with_its_connection() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let connection = Arc::into_inner(connection(&node.registry, Some(BROWSER))).expect("nobody else has it");
    let connection = Arc::new(Connection { forwarded_for: Some("203.0.113.7, 10.0.0.1".into()), ..connection });
    assert!(node.registry.connect(&connection, None));
    node.registry.record(&connection.id).await.expect("a record");
    // Whoever takes over says so with the `$disconnect`.
    let record = &node.records(&server).await[&connection.id];
    assert_eq!(format!("{:?}", record.connection), format!("{connection:?}"));
    assert_eq!((record.connection.port, record.connection.forwarded_for.is_some()), (443, true));
}

#[tokio::test]
async fn records_that_appear_or_vanish_behind_the_nodes_back_are_put_right() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    // Each change in a bucket of its own: buckets are compared when their number of records is wrong.
    let kept = node.open().await;
    let lost = loop {
        let lost = node.open().await;
        if lost.id.bucket() != kept.id.bucket() {
            break lost;
        }
    };
    let stranger = loop {
        let stranger = ConnectionId::random(node.id());
        if ![kept.id.bucket(), lost.id.bucket()].contains(&stranger.bucket()) {
            break stranger;
        }
    };
    assert!(node.replica.flush().await);
    let redis = server.connection().await;
    let bucket = |name, id| RedisCommand::new(name, node.replica.keys().bucket(node.id(), Keys::bucket_of(id)));
    for call in [
        bucket("HDEL", &lost.id).arg(lost.id.to_string()),
        bucket("HSET", &stranger).arg(stranger.to_string()).arg("x"),
        bucket("HSET", &kept.id).arg("no id at all").arg("x"),
    ] {
        redis.run_one(call).await.expect("an answer");
    }
    let fields = |call: RedisCommand| {
        let redis = redis.clone();
        async move { read::<Vec<String>>(redis.run_one(call).await.expect("an answer")).expect("names") }
    };
    eventually("all is as it should be", async || {
        fields(bucket("HKEYS", &stranger)).await.is_empty()
            && fields(bucket("HKEYS", &lost.id)).await.contains(&lost.id.to_string())
            && !fields(bucket("HKEYS", &kept.id)).await.contains(&"no id at all".to_owned())
    })
    .await;
    node.is_replicated(&server).await;
    assert_eq!(node.state(), RegistryState::Attached);
}
