//! Gateways of others, from Debian's packages, by the configurations in `loadtest/peers`.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{Kind, Programs, Protocol, Setting, Started, free_address, output};
use crate::process::Process;
use crate::scenario::Feature;

/// The versions that a report names.
pub(super) async fn version(kind: &Kind, programs: &Programs) -> anyhow::Result<String> {
    let first_line = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    Ok(match kind {
        Kind::Node => {
            let node = first_line(output(Path::new("node"), &["--version"]).await?);
            let ws = std::fs::read_to_string(programs.peers.join("node/node_modules/ws/package.json"));
            let ws = ws.ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
            let ws = ws.as_ref().and_then(|package| package["version"].as_str()).unwrap_or("not installed");
            format!("Node {node}, ws {ws}")
        }
        Kind::Nchan => {
            let nginx = first_line(output(Path::new("nginx"), &["-v"]).await?);
            let nchan = output(Path::new("dpkg-query"), &["-W", "-f=${Version}", "libnginx-mod-nchan"]).await?;
            format!("{nginx}, nchan {nchan}")
        }
        _ => first_line(output(Path::new("pushpin"), &["--version"]).await?),
    })
}

pub(super) async fn start_node(setting: &Setting<'_>) -> anyhow::Result<Started> {
    let mut command = Command::new("node");
    command.arg(setting.programs.peers.join("node/gateway.mjs")).arg(format!("http://{}/raw", setting.backend));
    let mut node = Process::start("node", command)?;
    let address = node.first_line().await?.parse()?;
    let protocol = Protocol::Gateway { stage: "/prod".to_owned() };
    Ok(Started {
        processes: vec![node],
        helpers: Vec::new(),
        clients: vec![address],
        posts: address,
        health: None,
        protocol,
    })
}

pub(super) fn start_nchan(setting: &Setting<'_>) -> anyhow::Result<Started> {
    let address = free_address()?;
    let config = fill(setting, "nchan/nginx.conf", &[("@ADDRESS@", address.to_string())])?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(setting.directory).arg("-c").arg(config).args(["-e", "stderr"]);
    let nginx = Process::start("nginx", command)?;
    let protocol = Protocol::Nchan { has_group: setting.scenario.needs(Feature::Groups) };
    Ok(Started {
        processes: vec![nginx],
        helpers: Vec::new(),
        clients: vec![address],
        posts: address,
        health: None,
        protocol,
    })
}

pub(super) fn start_pushpin(setting: &Setting<'_>) -> anyhow::Result<Started> {
    let (clients, posts) = (free_address()?, free_address()?);
    fill(setting, "pushpin/routes", &[("@BACKEND@", setting.backend.to_string())])?;
    let values = [
        ("@CLIENTS_PORT@", clients.port().to_string()),
        ("@POSTS_PORT@", posts.port().to_string()),
        ("@DIRECTORY@", setting.directory.to_string_lossy().into_owned()),
    ];
    let config = fill(setting, "pushpin/pushpin.conf", &values)?;
    let mut command = Command::new("pushpin");
    command.arg(format!("--config={}", config.display()));
    let pushpin = Process::start("pushpin", command)?;
    let protocol = Protocol::Pushpin;
    Ok(Started { processes: vec![pushpin], helpers: Vec::new(), clients: vec![clients], posts, health: None, protocol })
}

/// Writes a configuration with its placeholders filled.
fn fill(setting: &Setting<'_>, template: &str, values: &[(&str, String)]) -> anyhow::Result<PathBuf> {
    let template = setting.programs.peers.join(template);
    let mut text = std::fs::read_to_string(&template)?;
    for (placeholder, value) in values {
        text = text.replace(placeholder, value);
    }
    let path = setting.directory.join(template.file_name().unwrap_or_default());
    std::fs::write(&path, text)?;
    Ok(path)
}
