use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::config;
use tidegate_connections::cluster::{Directory, NodeView};
use tidegate_connections::redis_client::{Keys, RedisConnection};
use tidegate_connections::registry::{ConnectionView, Page, Query};
use tidegate_core::error_chain::chain;
use tidegate_core::id::NodeId;

/// Longest time for each answer of Redis.
const PATIENCE: Duration = Duration::from_secs(10);

/// Number of connections that one request asks for.
const PAGE: usize = 1000;

/// The arguments of `tidegate connections`.
#[derive(Debug, Default)]
pub struct ConnectionsArguments {
    pub api: Option<String>,
    pub stage: Option<String>,
    pub node: Option<String>,
    /// True to print only the number of connections.
    pub count: bool,
    pub json: bool,
}

/// Runs `tidegate nodes`: prints all nodes, as recorded in Redis.
///
/// # Errors
/// Returns a text for the user if the configuration has problems or no Redis, or if Redis does not answer.
pub async fn nodes(path: &Path, json: bool) -> Result<(), String> {
    let nodes = directory(path).await?.nodes().await.map_err(|error| chain(&error).to_string())?;
    if json {
        return print(&format!("{}\n", serde_json::json!({ "nodes": nodes })));
    }
    let mut text = node_line("NODE", "STATE", "LEASE", "CONNECTIONS", "VERSION", "ADVERTISE");
    for NodeView { node, advertise, version, state, lease_alive, connections } in &nodes {
        let lease = if *lease_alive { "alive" } else { "lapsed" };
        text.push_str(&node_line(node, state, lease, &connections.to_string(), version, advertise));
    }
    print(&text)
}

/// Runs `tidegate connections`: prints connections of all nodes, as recorded in Redis, a page at a time. With `json`
/// each line has one connection.
///
/// # Errors
/// Returns a text for the user if the configuration has problems or no Redis, or if Redis does not answer.
pub async fn connections(path: &Path, arguments: ConnectionsArguments) -> Result<(), String> {
    let ConnectionsArguments { api, stage, node, count, json } = arguments;
    let node = node.map(|node| NodeId::parse(&node).map_err(|error| format!("`{node}`: {error}"))).transpose()?;
    let directory = directory(path).await?;
    if count && api.is_none() && stage.is_none() {
        let count = directory.count(node).await.map_err(|error| chain(&error).to_string())?;
        return print_count(count, json);
    }
    let query = Query { api, stage, node };
    if !count && !json {
        print(&connection_line("CONNECTION", "NODE", "API", "STAGE", "STATE", "SINCE", "SOURCE"))?;
    }
    let (mut counted, mut cursor) = (0, None);
    loop {
        let page = directory.connections(&query, cursor.as_deref(), PAGE).await;
        let Page { connections, cursor: next } = page.map_err(|error| chain(&error).to_string())?;
        counted += connections.len() as u64;
        if !count {
            let line = |connection: &ConnectionView| match json {
                true => serde_json::to_string(connection).map(|line| line + "\n").unwrap_or_default(),
                false => {
                    let ConnectionView { connection_id, node, api_id, stage, state, connected_at, .. } = connection;
                    connection_line(connection_id, node, api_id, stage, state, connected_at, &connection.source_ip)
                }
            };
            print(&connections.iter().map(line).collect::<String>())?;
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    if count { print_count(counted, json) } else { Ok(()) }
}

async fn directory(path: &Path) -> Result<Directory, String> {
    let loaded = config::load_file(path, &|name| std::env::var(name).ok()).map_err(|error| error.to_string())?;
    let settings = &loaded.config.registry;
    let Some(redis) = settings.redis() else {
        return Err(format!(
            "{}: with `registry.type: memory` only the node itself knows its connections; ask it at http://{}/connections",
            path.display(),
            loaded.config.listeners.internal.address
        ));
    };
    let connection = RedisConnection::open(&redis, PATIENCE).await.map_err(|error| chain(&error).to_string())?;
    Ok(Directory::new(connection, Keys::new(&settings.key_prefix)))
}

fn node_line(node: &str, state: &str, lease: &str, connections: &str, version: &str, advertise: &str) -> String {
    format!("{node:<8}  {state:<7}  {lease:<6}  {connections:>11}  {version:<10}  {advertise}\n")
}

fn connection_line(id: &str, node: &str, api: &str, stage: &str, state: &str, since: &str, source: &str) -> String {
    format!("{id:<20}  {node:<8}  {api:<12}  {stage:<12}  {state:<10}  {since:<24}  {source}\n")
}

fn print_count(count: u64, json: bool) -> Result<(), String> {
    print(&if json { format!("{{\"count\":{count}}}\n") } else { format!("{count}\n") })
}

/// Writes to stdout. A closed pipe is not an error: the reader may have seen enough.
fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("could not print: {error}")),
        Ok(()) | Err(_) => Ok(()),
    }
}
