//! The registry in a Redis Cluster: two servers that share the slots.

use std::time::Duration;

use tidegate_connections::cluster::{Directory, Standing};
use tidegate_connections::redis_client::{
    RedisCommand, RedisConnection, RedisSettings, RedisUrl, RedisUrls, Value, read,
};
use tidegate_connections::registry::Query;
use tidegate_connections::session::Closing;
use tidegate_testing::{REGISTRY_LEASE, RedisServer, RegistryNode, RegistryNodeOptions, eventually, free_port};

use crate::registry::SOON;

/// Two servers, each with half of the slots, and further `arguments`.
async fn cluster(arguments: &[&str]) -> ([RedisServer; 2], RedisSettings) {
    let further = arguments;
    let bus = [free_port(), free_port()];
    let mut servers = Vec::new();
    for port in bus {
        let port = port.to_string();
        let arguments = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", &port];
        servers.push(RedisServer::start_with(&[&arguments[..], further].concat()).await);
    }
    let servers: [RedisServer; 2] = servers.try_into().unwrap_or_else(|_| panic!("two"));
    for (server, slots) in servers.iter().zip([["0", "8191"], ["8192", "16383"]]) {
        server.run(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]).await;
    }
    let [first, second] = &servers;
    let meet = RedisCommand::new("CLUSTER", "MEET".to_owned())
        .arg("127.0.0.1")
        .arg(second.port().to_string())
        .arg(bus[1].to_string());
    first.connection().await.run_one(meet).await.expect("they meet");
    for server in &servers {
        eventually("the cluster is whole", async || {
            let info: String = read(server.run(&["CLUSTER", "INFO"]).await).expect("text");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
        .await;
    }
    let urls = servers.iter().map(|server| RedisUrl::from(server.url())).collect();
    let settings = RedisSettings { urls: RedisUrls::Cluster(urls), username: None, password: None };
    (servers, settings)
}

#[tokio::test]
async fn nodes_live_in_a_redis_cluster() {
    let (servers, redis) = cluster(&[]).await;
    let launch = |advertise: &str| {
        let options = RegistryNodeOptions::new(&servers[0]);
        RegistryNode::launch(RegistryNodeOptions { redis: redis.clone(), advertise: advertise.to_owned(), ..options })
    };
    // With several nodes, both servers most likely hold keys of some; whichever do, all is found.
    let nodes = ["a:1", "a:2", "a:3", "a:4"].map(launch);
    for node in &nodes {
        node.is("attached").await;
        for _ in 0..50 {
            node.open().await;
        }
        assert!(node.replica.flush().await);
    }
    let connection = RedisConnection::open(&redis, SOON).await.expect("a connection");
    let directory = Directory::new(connection, nodes[0].replica.keys().clone());
    assert_eq!(directory.count(None).await.expect("a number"), 200);
    let mut shown = 0;
    let mut cursor = None;
    loop {
        let page = directory.connections(&Query::default(), cursor.as_deref(), 70).await.expect("a page");
        shown += page.connections.len();
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(shown, 200);
    assert!(nodes[0].membership.refresh().await);
    for other in &nodes[1..] {
        let standing = nodes[0].membership.standing(&other.id(), REGISTRY_LEASE);
        assert!(matches!(&standing, Standing::Known(member) if member.lease_alive), "{standing:?}");
    }
    for node in &nodes {
        for id in node.registry.all() {
            node.registry.end(&id, Closing::lost());
            node.registry.settle(&id);
        }
        node.leave().await;
    }
    for server in &servers {
        assert_eq!(server.keys().await, Vec::<String>::new());
    }
    tokio::time::timeout(Duration::from_secs(1), nodes[0].kill()).await.expect("all tasks end");
}

#[tokio::test]
async fn the_rights_that_the_documentation_names_are_enough_in_a_redis_cluster() {
    let page = include_str!("../../../docs/cluster.md");
    let rights = page.lines().find_map(|line| line.strip_prefix("ACL SETUSER tidegate ")).expect("the rights");
    let further = "A Redis Cluster needs `";
    let further = page.split(further).nth(1).and_then(|rest| rest.split('`').next()).expect("further rights");
    let rights =
        format!("--user tidegate {rights} {further}").replace(">PASSWORD", ">right").replace("~tidegate:", "~t:");
    let (servers, mut redis) = cluster(&rights.split(' ').collect::<Vec<_>>()).await;
    redis.username = Some("tidegate".to_owned());
    redis.password = Some("right".to_owned().into());
    let nodes = ["a:1", "a:2", "a:3", "a:4"].map(|advertise: &str| {
        let options = RegistryNodeOptions::new(&servers[0]);
        RegistryNode::launch(RegistryNodeOptions { redis: redis.clone(), advertise: advertise.to_owned(), ..options })
    });
    for node in &nodes {
        node.is("attached").await;
        node.open().await;
        assert!(node.replica.flush().await);
    }
    let directory = RedisConnection::open(&redis, SOON).await.expect("a connection");
    let directory = Directory::new(directory, nodes[0].replica.keys().clone());
    assert_eq!(directory.count(None).await.expect("a number"), 4);
    for server in &servers {
        let log: Vec<Vec<Value>> = read(server.run(&["ACL", "LOG"]).await).expect("a list");
        assert!(log.is_empty(), "nothing was denied: {log:?}");
    }
}
