//! What grows while all else stays: `loadtest/growth.yaml`.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// Where it is, seen from the root of the repository.
pub(crate) const FILE: &str = "loadtest/growth.yaml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Growths {
    growths: Vec<Growth>,
}

/// One thing that grows.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Growth {
    pub(crate) name: String,
    /// What it shows, for people.
    pub(crate) description: String,
    pub(crate) scenario: String,
    pub(crate) target: String,
    pub(crate) vary: Vary,
    pub(crate) values: Vec<usize>,
    /// What must stay the same.
    pub(crate) figure: String,
    pub(crate) rounds: Option<u32>,
}

/// What grows.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Vary {
    Connections,
    Routes,
    Nodes,
}

impl Vary {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Vary::Connections => "connections",
            Vary::Routes => "routes",
            Vary::Nodes => "nodes",
        }
    }

    pub(crate) fn change(self, scenario: &mut Scenario, value: usize) {
        match self {
            Vary::Connections => scenario.connections = value,
            Vary::Routes => scenario.routes = value,
            Vary::Nodes => scenario.nodes = value,
        }
    }
}

/// Everything that a file has grow.
pub(crate) fn load(path: &Path) -> anyhow::Result<Vec<Growth>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    let growths: Growths =
        serde_saphyr::from_str(&text).with_context(|| format!("could not read {}", path.display()))?;
    Ok(growths.growths)
}
