//! Plays scenarios on targets, interleaved, and compares.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use anyhow::Context as _;

use crate::budget::{self, Budgets};
use crate::machine;
use crate::play::{PlayArguments, find, progress, refuses};
use crate::report::{Played, Report};
use crate::run::run;
use crate::scenario::Scenario;
use crate::target::{Attached, Kind};

/// How often each target plays a scenario that does not say it.
const ROUNDS: u32 = 3;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A scenario; may be given several times. Without it all short ones are played.
    #[arg(long = "scenario", value_name = "NAME")]
    scenario_names: Vec<String>,

    /// Targets instead of the scenario's own, in the order in which each round meets them: floor, tidegate (AWS_PROXY), tidegate-http (HTTP_PROXY),
    /// tidegate-observed (AWS_PROXY with an access log and metrics of each route), node, nchan, pushpin.
    #[arg(long = "targets", value_name = "NAME,...", value_delimiter = ',', value_parser = Kind::parse)]
    targets: Vec<Kind>,

    /// Connections instead of the scenario's own.
    #[arg(long)]
    connections: Option<usize>,

    #[command(flatten)]
    play: PlayArguments,

    /// What the targets may cost.
    #[arg(long, value_name = "FILE", default_value = budget::FILE)]
    budgets: PathBuf,

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
    let mut machine = machine::look();
    let programs = arguments.play.programs();
    let given = match &arguments.attach {
        Some(url) => vec![Kind::Attached(attached(arguments, url)?)],
        None => arguments.targets.clone(),
    };
    let budgets = Budgets::load(&arguments.budgets)?;
    let mut plays = Vec::new();
    for scenario in scenarios(arguments)? {
        if let Some(why) = refuses(&machine, &scenario) {
            anyhow::bail!("{}: {why}", scenario.name);
        }
        let targets = if given.is_empty() { own_targets(&scenario)? } else { given.clone() };
        let rounds = arguments.play.rounds.or(scenario.rounds).unwrap_or(ROUNDS);
        plays.push((scenario, targets, rounds));
    }
    let (mut versions, mut features) = (BTreeMap::new(), BTreeMap::new());
    for target in plays.iter().flat_map(|(_, targets, _)| targets) {
        if !versions.contains_key(target.name()) {
            versions.insert(target.name().to_owned(), target.version(&programs).await?);
            features.insert(target.name(), target.features(&programs).await?);
        }
    }

    let seconds = plays
        .iter()
        .map(|(scenario, targets, rounds)| scenario.expected_seconds() * targets.len() as f64 * f64::from(*rounds));
    let progress = progress(seconds.sum());
    let mut played = Vec::new();
    for (scenario, targets, rounds) in plays {
        let mut runs = Played::new(scenario);
        for round in 1..=rounds {
            for target in &targets {
                let scenario = &runs.scenario;
                progress.set_message(format!("{}, {}, round {round}", scenario.name, target.name()));
                let has = |feature| features.get(target.name()).is_some_and(|features| features.contains(feature));
                let seconds = scenario.expected_seconds() as u64;
                match scenario.requires.iter().find(|feature| !has(feature)) {
                    Some(missing) => runs.not_played(target.name(), format!("it has no {missing:?}").to_lowercase()),
                    None => {
                        let outcome = run(scenario, target, &programs).await;
                        let outcome = outcome.with_context(|| format!("{} on {}", scenario.name, target.name()))?;
                        runs.played(target.name(), outcome);
                    }
                }
                progress.inc(seconds);
            }
        }
        played.push(runs);
    }
    progress.finish_and_clear();

    machine.note_end();
    let report = Report::new(machine, versions, played, &budgets);
    print!("{}", report.markdown());
    arguments.play.write(&report, report.pictures())?;
    Ok(report.is_good())
}

/// The scenarios to play, with what the command line changes.
fn scenarios(arguments: &Arguments) -> anyhow::Result<Vec<Scenario>> {
    let all = arguments.play.scenarios()?;
    let mut chosen = Vec::new();
    if arguments.scenario_names.is_empty() {
        chosen.extend(all.into_iter().filter(|scenario| scenario.short));
    } else {
        for name in &arguments.scenario_names {
            chosen.push(find(&all, name)?.clone());
        }
    }
    for scenario in &mut chosen {
        scenario.connections = arguments.connections.unwrap_or(scenario.connections);
    }
    Ok(chosen)
}

/// The targets that a scenario is for when none are given.
fn own_targets(scenario: &Scenario) -> anyhow::Result<Vec<Kind>> {
    let names = scenario.targets.iter().map(String::as_str);
    let kinds: Result<_, _> = names.map(Kind::parse).collect();
    kinds.map_err(|error| anyhow::anyhow!("{}: {error}", scenario.name))
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
