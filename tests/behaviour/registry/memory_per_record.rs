//! The memory that a connection takes in Redis.

use tidegate_connections::redis_client::{BUCKETS, RedisCommand, read};
use tidegate_testing::{BROWSER, RedisServer, RegistryNode, connection, outbox};

const CONNECTIONS: usize = 20_000;

#[tokio::test]
async fn a_connection_costs_less_than_250_bytes_with_a_browsers_user_agent() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    let agents: Vec<String> = (0..50).map(|version| BROWSER.replace("142", &version.to_string())).collect();
    for chunk in (0..CONNECTIONS).collect::<Vec<_>>().chunks(2000) {
        let connections: Vec<_> = chunk
            .iter()
            .map(|number| {
                let connection = connection(&node.registry, Some(&agents[number % agents.len()]));
                node.registry.connect(&connection, None);
                connection
            })
            .collect();
        let records = connections.iter().map(|connection| node.registry.record(&connection.id));
        assert!(futures_util::future::join_all(records).await.iter().all(Result::is_ok));
        for connection in &connections {
            node.registry.open(&connection.id, outbox());
        }
    }
    assert!(node.replica.flush().await);
    let redis = server.connection().await;
    let keys = (0..BUCKETS).map(|bucket| node.replica.keys().bucket(node.id(), bucket));
    let usage = |key: String| RedisCommand::new("MEMORY", "USAGE".to_owned()).arg(key).arg("SAMPLES").arg("0");
    let calls: Vec<RedisCommand> = keys.chain([node.replica.keys().strings(node.id())]).map(usage).collect();
    let bytes: u64 =
        redis.run(&calls).await.expect("answers").into_iter().map(|bytes| read::<u64>(bytes).expect("a size")).sum();
    let each = bytes / CONNECTIONS as u64;
    println!("{each} bytes of Redis for each of {CONNECTIONS} open connections");
    assert!(each < 250, "{each}");
}
