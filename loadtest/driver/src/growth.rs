//! Changes one thing at a time, and looks whether what one connection or one message costs stays the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::machine;
use crate::play::{PlayArguments, find, progress, refuses};
use crate::report::{Grown, GrowthReport, Step};
use crate::run::run;
use crate::scenario::Scenario;
use crate::target::Kind;
use crate::vary::{self, Growth};

/// How often each value is played, interleaved, unless the file or the command line says so.
const ROUNDS: u32 = 3;

/// What to grow.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A growth of the file; may be given several times. Without it all are played.
    #[arg(long = "growth", value_name = "NAME")]
    names: Vec<String>,

    /// What grows, and how far.
    #[arg(long, value_name = "FILE", default_value = vary::FILE)]
    growths: PathBuf,

    #[command(flatten)]
    play: PlayArguments,
}

/// Measures, prints, writes. `false` if a run had errors.
pub(crate) async fn growth(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut machine = machine::look();
    let programs = arguments.play.programs();
    let growths = vary::load(&arguments.growths)?;
    for name in &arguments.names {
        anyhow::ensure!(growths.iter().any(|growth| growth.name == *name), "there is no growth `{name}`");
    }
    let scenarios = arguments.play.scenarios()?;
    let mut versions = BTreeMap::new();
    let mut plays = Vec::new();
    for growth in growths {
        if !arguments.names.is_empty() && !arguments.names.contains(&growth.name) {
            continue;
        }
        let kind = Kind::parse(&growth.target).map_err(|error| anyhow::anyhow!("{}: {error}", growth.name))?;
        versions.insert(growth.target.clone(), kind.version(&programs).await?);
        let scenario = find(&scenarios, &growth.scenario)?;
        let steps: Vec<_> = growth
            .values
            .iter()
            .map(|value| {
                let mut scenario = scenario.clone();
                growth.vary.change(&mut scenario, *value);
                // Connecting takes its time.
                scenario.deadline_seconds += scenario.expected_seconds();
                scenario
            })
            .collect();
        plays.push((growth, kind, steps));
    }
    let rounds_of = |growth: &Growth| arguments.play.rounds.or(growth.rounds).unwrap_or(ROUNDS);
    let seconds = plays.iter().map(|(growth, _, steps)| {
        steps.iter().map(Scenario::expected_seconds).sum::<f64>() * f64::from(rounds_of(growth))
    });
    let progress = progress(seconds.sum());

    let mut growths = Vec::new();
    for (growth, kind, scenarios) in plays {
        let refused = |scenario: &Scenario| refuses(&machine, scenario);
        let mut steps: Vec<_> = growth
            .values
            .iter()
            .zip(&scenarios)
            .map(|(value, scenario)| Step { value: *value, outcomes: Vec::new(), not_played: refused(scenario) })
            .collect();
        for round in 1..=rounds_of(&growth) {
            for (step, scenario) in steps.iter_mut().zip(&scenarios) {
                progress.set_message(format!("{}, {} {}, round {round}", growth.name, step.value, growth.vary.name()));
                if step.not_played.is_none() {
                    let outcome = run(scenario, &kind, &programs).await;
                    step.outcomes.push(outcome.with_context(|| format!("{} at {}", growth.name, step.value))?);
                }
                progress.inc(scenario.expected_seconds() as u64);
            }
        }
        growths.push(Grown { growth, steps });
    }
    progress.finish_and_clear();

    machine.note_end();
    let report = GrowthReport { machine, versions, growths };
    print!("{}", report.markdown());
    arguments.play.write(&report, [("growth".to_owned(), report.picture())])?;
    Ok(report.is_good())
}
