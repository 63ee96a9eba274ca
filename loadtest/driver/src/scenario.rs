//! Scenarios are data: `loadtest/scenarios/<name>/scenario.yaml`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Where scenarios are, seen from the root of the repository.
pub(crate) const DIRECTORY: &str = "loadtest/scenarios";

/// For the progress bar: how long a target and its backend take to start and to stop, and how quickly clients connect
/// and leave.
const START_SECONDS: f64 = 1.5;
const CONNECTS_PER_SECOND: f64 = 3000.0;

/// One scenario, as its file says it. What a kind does not use is left out.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The name of its directory.
    #[serde(default)]
    pub(crate) name: String,

    /// What it shows, for people.
    pub(crate) description: String,
    pub(crate) kind: Kind,

    /// Part of a run that names no scenario.
    #[serde(default)]
    pub(crate) short: bool,

    /// What the target has to have.
    #[serde(default)]
    pub(crate) requires: Vec<Feature>,

    /// Clients that are connected.
    pub(crate) connections: usize,

    /// The target tells the backend of connects and disconnects.
    #[serde(default)]
    pub(crate) events: bool,

    /// Length of a message, in bytes.
    #[serde(default = "payload_bytes")]
    pub(crate) payload_bytes: usize,

    /// Messages of each client that wait for their reply, when the rate is not given.
    #[serde(default = "one")]
    pub(crate) in_flight: usize,

    /// Messages a second of all clients together; without it as many as the target takes.
    pub(crate) messages_per_second: Option<u32>,

    /// Posts a second of the backend's side; without it as many as the target takes. For `fanout`, rounds a second.
    pub(crate) posts_per_second: Option<u32>,

    /// HTTP connections of the backend's side that post.
    #[serde(default = "posters")]
    pub(crate) posters: usize,

    /// Routes that messages are for. Each client sends to one of them.
    #[serde(default = "one")]
    pub(crate) routes: usize,

    /// Nodes of a cluster.
    #[serde(default = "nodes")]
    pub(crate) nodes: usize,

    /// In a cluster: clients are on all nodes. Without it they are on the first, and posts go to the last.
    #[serde(default)]
    pub(crate) spread: bool,

    /// Groups that each client joins, in a scenario of kind `join`.
    #[serde(default)]
    pub(crate) groups: usize,

    /// Clients that leave and come back, a second.
    pub(crate) reconnects_per_second: Option<u32>,

    /// Clients that stop reading, in percent.
    #[serde(default)]
    pub(crate) slow_percent: f64,

    /// For `overload`: the load of each phase, as many times what the target can dispatch. The first is what the target
    /// has to come back to in the last.
    #[serde(default)]
    pub(crate) loads: Vec<f64>,

    /// How long the backend takes for an answer, in milliseconds.
    #[serde(default)]
    pub(crate) backend_delay_millis: u64,

    /// Targets that it is for, unless the command line says so.
    #[serde(default = "targets")]
    pub(crate) targets: Vec<String>,

    /// Rounds, unless the command line says so: what is compared with nothing needs no more than one.
    pub(crate) rounds: Option<u32>,

    /// Load before anything is measured, in seconds.
    #[serde(default)]
    pub(crate) warmup_seconds: f64,

    /// What is measured, in seconds; for `overload`, of each phase.
    #[serde(default)]
    pub(crate) seconds: f64,

    /// The run is given up after this, in seconds.
    pub(crate) deadline_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// Memory of connections that do nothing, and how much of it comes back.
    Idle,
    /// Clients connect, one after the other on many lanes.
    Accept,
    /// Messages to the backend and their replies, posts to the clients, reconnects: what the rates say.
    Traffic,
    /// One post to every client, again and again.
    Fanout,
    /// All clients join a group, and one post at a time goes to it.
    Group,
    /// All clients join groups, and leave them.
    Join,
    /// All clients lose their connection and come back at once.
    Storm,
    /// Some clients stop reading while the others get posts.
    Slow,
    /// More messages than the target can dispatch, in phases, while health checks, posts and closes go on.
    Overload,
}

/// What not every target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Feature {
    /// Clients connect with TLS.
    Tls,
    /// Several nodes share a Redis.
    Cluster,
    /// Messages go to a backend whose answer is the reply.
    Dispatch,
    /// The backend is asked before a client is admitted.
    Connect,
    /// Clients can join a group, and a post goes to all of it.
    Groups,
    /// Queues are bounded and what does not fit is refused, health is answered, connections are closed by a call.
    Bounds,
}

fn payload_bytes() -> usize {
    128
}

fn targets() -> Vec<String> {
    ["floor", "tidegate"].map(str::to_owned).to_vec()
}

fn one() -> usize {
    1
}

fn nodes() -> usize {
    2
}

fn posters() -> usize {
    16
}

impl Scenario {
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_seconds)
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs_f64(self.deadline_seconds)
    }

    /// About how long a run takes, with starting and connecting.
    pub(crate) fn expected_seconds(&self) -> f64 {
        let loads = self.loads.len().max(1) as f64;
        let settles = if matches!(self.kind, Kind::Idle | Kind::Overload) { 2.0 } else { 1.0 };
        START_SECONDS
            + self.connections as f64 / CONNECTS_PER_SECOND
            + self.warmup_seconds * settles
            + self.seconds * loads
    }

    pub(crate) fn needs(&self, feature: Feature) -> bool {
        self.requires.contains(&feature)
    }

    /// Whether clients send messages, in a scenario of kind `traffic`: they do unless it only posts.
    pub(crate) fn dispatches(&self) -> bool {
        self.needs(Feature::Dispatch)
    }

    /// Whether the backend's side posts, in a scenario of kind `traffic`.
    pub(crate) fn posts(&self) -> bool {
        self.posts_per_second.is_some() || !self.dispatches()
    }
}

/// All scenarios of a directory, by name.
pub(crate) fn load_all(directory: &Path) -> anyhow::Result<Vec<Scenario>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("could not read {}; run it from the root of the repository", directory.display()))?;
    let mut scenarios = Vec::new();
    for entry in entries {
        let path = entry?.path().join("scenario.yaml");
        if path.exists() {
            scenarios.push(load(&path).with_context(|| format!("could not read {}", path.display()))?);
        }
    }
    scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scenarios)
}

fn load(path: &Path) -> anyhow::Result<Scenario> {
    let mut scenario: Scenario = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
    let directory = path.parent().and_then(Path::file_name).context("a scenario is in a directory")?;
    scenario.name = directory.to_string_lossy().into_owned();
    Ok(scenario)
}
