//! Plays scenarios on targets, interleaved, and compares.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::budget::{self, Budgets};
use crate::machine::{self, Machine};
use crate::report::{Played, Report};
use crate::run::run;
use crate::scenario::{self, Kind as ScenarioKind, Scenario};
use crate::target::{Attached, Kind, Programs};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A scenario; may be given several times. Without it all short ones are played.
    #[arg(long = "scenario", value_name = "NAME")]
    scenario_names: Vec<String>,

    /// Targets, in the order in which each round meets them: floor, tidegate (AWS_PROXY), tidegate-http (HTTP_PROXY),
    /// tidegate-observed (AWS_PROXY with an access log and metrics of each route), node, nchan, pushpin.
    #[arg(long = "targets", value_name = "NAME,...", value_delimiter = ',', default_value = "floor,tidegate,tidegate-http", value_parser = Kind::parse)]
    targets: Vec<Kind>,

    /// How often each target plays each scenario. The median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Connections instead of the scenario's own.
    #[arg(long)]
    connections: Option<usize>,

    /// Measured seconds instead of the scenario's own.
    #[arg(long)]
    seconds: Option<f64>,

    /// Seconds of warm-up instead of the scenario's own.
    #[arg(long)]
    warmup_seconds: Option<f64>,

    /// The tidegate program.
    #[arg(long, value_name = "FILE", default_value = "target/release/tidegate")]
    tidegate: PathBuf,

    /// The floor program.
    #[arg(long, value_name = "FILE", default_value = "target/release/tidegate-floor")]
    floor: PathBuf,

    /// Configurations of peers.
    #[arg(long, value_name = "DIR", default_value = "loadtest/peers")]
    peers: PathBuf,

    /// Where the scenarios are.
    #[arg(long, value_name = "DIR", default_value = scenario::DIRECTORY)]
    scenarios: PathBuf,

    /// What the targets may cost.
    #[arg(long, value_name = "FILE", default_value = budget::FILE)]
    budgets: PathBuf,

    /// Writes everything that was measured, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Writes a picture of memory and latency over time for each scenario, as SVG.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,

    /// Measures a gateway that runs already, such as ws://127.0.0.1:8080/prod, instead of the targets. Its @connections
    /// API must be open, and its integrations must lead to --backend: /event for AWS_PROXY, /raw for HTTP_PROXY.
    #[arg(long, value_name = "URL", requires = "backend")]
    attach: Option<String>,

    /// The process of the gateway that runs already, if it is on this machine; without it there are no CPU and memory
    /// figures.
    #[arg(long, value_name = "PID", requires = "attach")]
    pid: Option<i32>,

    /// Where the backend of a gateway that runs already listens.
    #[arg(long, value_name = "ADDRESS", requires = "attach")]
    backend: Option<SocketAddr>,

    /// Allows --attach to a gateway that is not on this machine. A load test is an attack on whoever has not asked
    /// for it.
    #[arg(long)]
    allow_remote_targets_i_own: bool,
}

/// Measures, prints, writes. `false` if a budget is exceeded or a run had errors.
pub(crate) async fn bench(arguments: &Arguments) -> anyhow::Result<bool> {
    let machine = machine::look();
    let programs = Programs {
        tidegate: arguments.tidegate.clone(),
        floor: arguments.floor.clone(),
        peers: arguments.peers.clone(),
    };
    let targets = match &arguments.attach {
        Some(url) => vec![Kind::Attached(attached(arguments, url)?)],
        None => arguments.targets.clone(),
    };
    let budgets = Budgets::load(&arguments.budgets)?;
    let scenarios = scenarios(arguments)?;
    for scenario in &scenarios {
        check(&machine, scenario)?;
    }
    let mut versions = BTreeMap::new();
    for target in &targets {
        versions.insert(target.name().to_owned(), target.version(&programs).await?);
    }

    let progress = progress(scenarios.len() * targets.len() * arguments.rounds as usize);
    let mut played = Vec::new();
    for scenario in scenarios {
        let mut runs = Played::new(scenario);
        for round in 1..=arguments.rounds {
            for target in &targets {
                let scenario = &runs.scenario;
                progress.set_message(format!("{}, {}, round {round}", scenario.name, target.name()));
                let features = target.features(&programs).await?;
                match scenario.requires.iter().find(|feature| !features.contains(feature)) {
                    Some(missing) => runs.not_played(target.name(), format!("it has no {missing:?}").to_lowercase()),
                    None => {
                        let outcome = run(scenario, target, &programs).await;
                        let outcome = outcome.with_context(|| format!("{} on {}", scenario.name, target.name()))?;
                        runs.played(target.name(), outcome);
                    }
                }
                progress.inc(1);
            }
        }
        played.push(runs);
    }
    progress.finish_and_clear();

    let report = Report::new(machine, versions, played, &budgets);
    print!("{}", report.markdown());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    if let Some(directory) = &arguments.plots {
        std::fs::create_dir_all(directory)?;
        for (name, picture) in report.pictures() {
            std::fs::write(directory.join(format!("{name}.svg")), picture)?;
        }
    }
    Ok(report.is_good())
}

/// The scenarios to play, with what the command line changes.
fn scenarios(arguments: &Arguments) -> anyhow::Result<Vec<Scenario>> {
    let all = scenario::load_all(&arguments.scenarios)?;
    let mut chosen = Vec::new();
    if arguments.scenario_names.is_empty() {
        chosen.extend(all.into_iter().filter(|scenario| scenario.short));
    } else {
        for name in &arguments.scenario_names {
            let scenario = all.iter().find(|scenario| scenario.name == *name);
            chosen.push(scenario.with_context(|| format!("there is no scenario `{name}`; `list` shows them"))?.clone());
        }
    }
    for scenario in &mut chosen {
        scenario.connections = arguments.connections.unwrap_or(scenario.connections);
        let before = scenario.seconds + scenario.warmup_seconds;
        scenario.seconds = arguments.seconds.unwrap_or(scenario.seconds);
        scenario.warmup_seconds = arguments.warmup_seconds.unwrap_or(scenario.warmup_seconds);
        // A longer run has a later deadline.
        scenario.deadline_seconds += (scenario.seconds + scenario.warmup_seconds - before).max(0.0);
    }
    Ok(chosen)
}

fn check(machine: &Machine, scenario: &Scenario) -> anyhow::Result<()> {
    // While a storm rages the target may not have noticed yet that the old sockets are gone.
    let sockets = scenario.connections * if scenario.kind == ScenarioKind::Storm { 2 } else { 1 };
    match machine.refuses(sockets) {
        Some(why) => anyhow::bail!("{}: {why}", scenario.name),
        None => Ok(()),
    }
}

fn attached(arguments: &Arguments, url: &str) -> anyhow::Result<Attached> {
    let url: http::Uri = url.parse().context("--attach is no URL")?;
    anyhow::ensure!(url.scheme_str() == Some("ws"), "--attach must begin with ws://");
    let host = url.host().context("--attach has no host")?;
    let address = (host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80))
        .to_socket_addrs()
        .with_context(|| format!("could not resolve {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    anyhow::ensure!(
        address.ip().is_loopback() || arguments.allow_remote_targets_i_own,
        "{address} is not on this machine. A load test is an attack on whoever has not asked for it: if the machine \
         is yours, say so with --allow-remote-targets-i-own"
    );
    anyhow::ensure!(address.is_ipv4(), "--attach needs an IPv4 address");
    Ok(Attached {
        address,
        stage: url.path().to_owned(),
        pid: arguments.pid,
        backend: arguments.backend.context("--attach needs --backend")?,
    })
}

/// A bar on a terminal, nothing elsewhere.
fn progress(runs: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(runs as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
