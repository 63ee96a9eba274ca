//! tidegate with its defaults, but for the open `@connections` API of the public listener that peers have too. One
//! variant writes an access log and counts each route by itself besides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Protocol, Setting, Started, free_address, output};
use crate::payload::route_key;
use crate::process::Process;
use crate::scenario::Feature;
use crate::target::Programs;

const STAGE: &str = "prod";

/// What the access log of the observed variant says of each event: what AWS's examples of a JSON format say.
const ACCESS_LOG_FORMAT: &str = r#"{"requestId":"$context.requestId","ip":"$context.identity.sourceIp","requestTime":"$context.requestTime","eventType":"$context.eventType","routeKey":"$context.routeKey","connectionId":"$context.connectionId","status":"$context.status","integrationLatency":"$context.integrationLatency"}"#;

/// How tidegate is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    AwsProxy,
    HttpProxy,
    /// `AWS_PROXY`, with an access log to a file and metrics of each route.
    Observed,
}

/// What this build of tidegate can, by its configuration's schema.
pub(super) async fn features(programs: &Programs) -> anyhow::Result<BTreeSet<Feature>> {
    let schema = output(&programs.tidegate, &["schema"]).await?;
    let schema: Value = serde_json::from_str(&schema).context("`tidegate schema` is not JSON")?;
    let mut features = BTreeSet::from([Feature::Dispatch, Feature::Connect, Feature::Bounds]);
    features.extend(has_property(&schema, "groupsPerConnection").then_some(Feature::Groups));
    features.extend(has_property(&schema, "tls").then_some(Feature::Tls));
    features.extend(has_property(&schema, "cluster").then_some(Feature::Cluster));
    Ok(features)
}

fn has_property(schema: &Value, name: &str) -> bool {
    match schema {
        Value::Object(members) => {
            let is_here = members.get("properties").is_some_and(|properties| properties.get(name).is_some());
            is_here || members.values().any(|member| has_property(member, name))
        }
        Value::Array(items) => items.iter().any(|item| has_property(item, name)),
        _ => false,
    }
}

pub(super) async fn start(setting: &Setting<'_>, variant: Variant) -> anyhow::Result<Started> {
    let (redis, nodes) = match setting.scenario.needs(Feature::Cluster) {
        true => (Some(start_redis(setting.directory)?), setting.scenario.nodes.max(1)),
        false => (None, 1),
    };
    let (mut processes, mut addresses) = (Vec::new(), Vec::new());
    for node in 0..nodes {
        let config = config(setting, variant, redis.as_ref().map(|(_, address)| *address))?;
        // JSON is YAML.
        let path = setting.directory.join(format!("tidegate-{node}.yaml"));
        std::fs::write(&path, serde_json::to_string_pretty(&config)?)?;
        let (process, node) = start_node(&setting.programs.tidegate, &path).await?;
        processes.push(process);
        addresses.push(node);
    }
    let (first, last) = (&addresses[0], &addresses[nodes - 1]);
    let clients = if setting.scenario.spread { &addresses[..] } else { &addresses[..1] };
    // Posts come in where the backend's side would send them; with TLS on the public listener, on the internal one.
    let posts = if setting.certificate.is_some() { last.internal } else { last.public };
    Ok(Started {
        processes,
        helpers: redis.map(|(process, _)| process).into_iter().collect(),
        clients: clients.iter().map(|node| node.public).collect(),
        posts,
        health: Some(first.internal),
        protocol: Protocol::Gateway { stage: format!("/{STAGE}") },
    })
}

/// Where one node listens.
struct Node {
    public: SocketAddr,
    internal: SocketAddr,
}

fn config(setting: &Setting<'_>, variant: Variant, redis: Option<SocketAddr>) -> anyhow::Result<Value> {
    let (integration_type, path) = match variant {
        Variant::AwsProxy | Variant::Observed => ("AWS_PROXY", "event"),
        Variant::HttpProxy => ("HTTP_PROXY", "raw"),
    };
    let stage = match variant {
        Variant::Observed => json!({
            "accessLogSettings": {"destination": setting.directory.join("access.log"), "format": ACCESS_LOG_FORMAT},
            "defaultRouteSettings": {"detailedMetricsEnabled": true},
        }),
        Variant::AwsProxy | Variant::HttpProxy => json!({}),
    };
    let two_way = json!({"target": "integrations/backend", "routeResponseSelectionExpression": "$default"});
    let mut routes = json!({"$default": two_way, "whoami": two_way});
    for number in 0..setting.scenario.routes {
        routes[route_key(number)] = two_way.clone();
    }
    if setting.scenario.events {
        routes["$connect"] = json!({"target": "integrations/backend"});
        routes["$disconnect"] = json!({"target": "integrations/backend"});
    }
    let mut config = json!({
        "listeners": {
            "public": {"address": "127.0.0.1:0", "connectionsApi": "NONE"},
            "internal": {"address": "127.0.0.1:0"},
        },
        "apis": {"load": {
            "name": "Load test",
            "routeSelectionExpression": "$request.body.action",
            "integrations": {"backend": {
                "integrationType": integration_type,
                "integrationUri": format!("http://{}/{path}", setting.backend),
            }},
            "routes": routes,
            "stages": {STAGE: stage},
        }},
    });
    if let Some(certificate) = setting.certificate {
        config["listeners"]["public"]["tls"] = json!({
            "certificates": [{"certificate": certificate.chain, "privateKey": certificate.private_key}],
        });
    }
    if let Some(redis) = redis {
        let address = free_address()?;
        config["registry"] = json!({"type": "redis", "url": format!("redis://{redis}/0")});
        config["cluster"] =
            json!({"address": address, "advertise": address, "secret": "load-test-secret-0123456789abcdef"});
    }
    Ok(config)
}

/// Starts a node, and reads from its log where it listens.
async fn start_node(program: &Path, config: &Path) -> anyhow::Result<(Process, Node)> {
    let mut command = Command::new(program);
    command.args(["--log-format", "json", "serve", "--config"]).arg(config).env_remove("RUST_LOG");
    let mut process = Process::start("tidegate", command)?;
    let node = process.line_on_stderr(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        // A member of a cluster listens before it is registered and linked.
        line.get("message").filter(|message| *message == "ready")?;
        let address = |name: &str| line.get(name)?.as_str()?.parse().ok();
        Some(Node { public: address("public")?, internal: address("internal")? })
    });
    let node = node.await?;
    Ok((process, node))
}

fn start_redis(directory: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let mut command = Command::new("redis-server");
    command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"]);
    command.arg(address.port().to_string()).arg("--dir").arg(directory);
    Ok((Process::start("redis-server", command)?, address))
}
