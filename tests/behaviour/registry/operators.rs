//! The commands for operators: nodes and connections.

use std::collections::BTreeSet;

use tidegate_connections::cluster::{Directory, DirectoryError};
use tidegate_connections::registry::Query;
use tidegate_testing::{RedisServer, RegistryNode, RegistryNodeOptions, tidegate};

use crate::registry::API;

#[tokio::test]
async fn nodes_and_connections_of_all_nodes_are_shown_a_page_at_a_time() {
    let server = RedisServer::start().await;
    let first = RegistryNode::start(&server).await;
    let second = RegistryNode::launch(RegistryNodeOptions {
        advertise: "127.0.0.1:2".to_owned(),
        ..RegistryNodeOptions::new(&server)
    });
    second.is("attached").await;
    let mut expected = BTreeSet::new();
    for _ in 0..400 {
        expected.insert(first.open().await.id.to_string());
        expected.insert(second.open().await.id.to_string());
    }
    assert!(first.replica.flush().await && second.replica.flush().await);
    let directory = Directory::new(server.connection().await, first.replica.keys().clone());

    let nodes = directory.nodes().await.expect("nodes");
    let mut ids = [first.id(), second.id()];
    ids.sort();
    assert_eq!(nodes.iter().map(|node| node.node.clone()).collect::<Vec<_>>(), ids.map(|id| id.to_string()));
    assert!(nodes.iter().all(|node| node.connections == 400 && node.state == "live" && node.lease_alive));
    assert_eq!(directory.count(None).await.expect("a number"), 800);
    assert_eq!(directory.count(Some(first.id())).await.expect("a number"), 400);

    let shown = all(&directory, &Query::default()).await;
    assert_eq!(shown, expected);
    let of_node = all(&directory, &Query { node: Some(second.id()), ..Query::default() }).await;
    assert_eq!(of_node.len(), 400);
    assert!(of_node.iter().all(|id| id.starts_with(&second.id().to_string())));
    assert!(all(&directory, &Query { api: Some("other".to_owned()), ..Query::default() }).await.is_empty());
    assert_eq!(all(&directory, &Query { stage: Some("prod".to_owned()), ..Query::default() }).await.len(), 800);
    let wrong = directory.connections(&Query::default(), Some("nonsense"), 10).await;
    assert!(matches!(wrong, Err(DirectoryError::Cursor)));
}

#[tokio::test]
async fn the_command_line_shows_the_same() {
    let server = RedisServer::start().await;
    let node = RegistryNode::start(&server).await;
    for _ in 0..3 {
        node.open().await;
    }
    assert!(node.replica.flush().await);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "registry: {{ type: redis, url: '{}', keyPrefix: t }}\ncluster: {{ secret: a secret of sixteen }}\n{API}",
        server.url()
    );
    std::fs::write(file.path(), text).expect("written");
    let run = |words: &'static [&'static str]| {
        let mut command = tidegate(words);
        command.arg("--config").arg(file.path());
        async move {
            let output = command.output().await.expect("it runs");
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("text")
        }
    };
    let nodes: serde_json::Value = serde_json::from_str(&run(&["nodes", "--json"]).await).expect("JSON");
    assert_eq!(nodes["nodes"][0]["connections"], 3);
    assert!(run(&["nodes"]).await.contains(&node.id().to_string()));
    assert_eq!(run(&["connections", "--count"]).await, "3\n");
    assert_eq!(run(&["connections", "--count", "--json", "--api", "other"]).await, "{\"count\":0}\n");
    let table = run(&["connections", "--api", "chat", "--stage", "prod"]).await;
    assert_eq!(table.lines().count(), 4, "{table}");
    let lines = run(&["connections", "--json"]).await;
    let ids: BTreeSet<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["connectionId"].to_string())
        .collect();
    assert_eq!(ids.len(), 3);
}

async fn all(directory: &Directory, query: &Query) -> BTreeSet<String> {
    let (mut shown, mut cursor) = (BTreeSet::new(), None);
    loop {
        let page = directory.connections(query, cursor.as_deref(), 50).await.expect("a page");
        assert!(page.connections.len() <= 200, "a page of {}", page.connections.len());
        shown.extend(page.connections.into_iter().map(|connection| connection.connection_id));
        cursor = page.cursor;
        if cursor.is_none() {
            return shown;
        }
    }
}
