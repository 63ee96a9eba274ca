//! What all commands that play scenarios share: programs, changes to scenarios, the progress bar.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::machine::Machine;
use crate::scenario::{self, Kind as ScenarioKind, Scenario};
use crate::target::Programs;

/// What to play with.
#[derive(clap::Args)]
pub(crate) struct PlayArguments {
    /// Measured seconds instead of the scenario's own.
    #[arg(long)]
    seconds: Option<f64>,

    /// Seconds of warm-up instead of the scenario's own.
    #[arg(long)]
    warmup_seconds: Option<f64>,

    /// How often each target plays each scenario, instead of the scenario's own number. The median counts.
    #[arg(long, overrides_with = "rounds", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,

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

    /// Writes everything that was measured, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Writes pictures, as SVG.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

impl PlayArguments {
    pub(crate) fn programs(&self) -> Programs {
        Programs { tidegate: self.tidegate.clone(), floor: self.floor.clone(), peers: self.peers.clone() }
    }

    /// All scenarios, with what the command line changes.
    pub(crate) fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        let mut scenarios = scenario::load_all(&self.scenarios)?;
        for scenario in &mut scenarios {
            let before = scenario.seconds + scenario.warmup_seconds;
            scenario.seconds = self.seconds.unwrap_or(scenario.seconds);
            scenario.warmup_seconds = self.warmup_seconds.unwrap_or(scenario.warmup_seconds);
            // A longer run has a later deadline.
            scenario.deadline_seconds += (scenario.seconds + scenario.warmup_seconds - before).max(0.0);
        }
        Ok(scenarios)
    }

    /// Writes what was asked for: a report as JSON, and pictures by their names.
    pub(crate) fn write(
        &self,
        report: &impl serde::Serialize,
        pictures: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<()> {
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(report)?)
                .with_context(|| format!("could not write {}", path.display()))?;
        }
        if let Some(directory) = &self.plots {
            std::fs::create_dir_all(directory)?;
            for (name, picture) in pictures {
                std::fs::write(directory.join(format!("{name}.svg")), picture)?;
            }
        }
        Ok(())
    }
}

/// The scenario of this name.
pub(crate) fn find<'a>(scenarios: &'a [Scenario], name: &str) -> anyhow::Result<&'a Scenario> {
    let scenario = scenarios.iter().find(|scenario| scenario.name == name);
    scenario.with_context(|| format!("there is no scenario `{name}`; `list` shows them"))
}

/// Why this machine cannot play a scenario, if it cannot.
pub(crate) fn refuses(machine: &Machine, scenario: &Scenario) -> Option<String> {
    // While a storm rages the target may not have noticed yet that the old sockets are gone.
    machine.refuses(scenario.connections * if scenario.kind == ScenarioKind::Storm { 2 } else { 1 })
}

/// A bar of so many seconds, with the time that is left, on a terminal; nothing elsewhere.
pub(crate) fn progress(seconds: f64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(seconds as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent} %, {elapsed} gone, {eta} left: {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
