//! What a bench found out, for people and for programs.

mod growth;
mod markdown;
mod pictures;
mod svg;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::budget::{Budgets, Judgement, Limit, Verdict};
use crate::machine::Machine;
use crate::run::Outcome;
use crate::scenario::Scenario;
use crate::statistics::Summary;

pub(crate) use growth::{Grown, GrowthReport, Step};

/// The target that others are compared with.
const FLOOR: &str = "floor";

/// A whole bench.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    machine: Machine,
    versions: BTreeMap<String, String>,
    scenarios: Vec<Played>,
    judgements: Vec<Judgement>,
}

/// One scenario with all rounds of all targets.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Played {
    pub(crate) scenario: Scenario,
    /// In the order in which they were given.
    targets: Vec<Rounds>,
    /// Why a target did not play it.
    not_played: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rounds {
    target: String,
    outcomes: Vec<Outcome>,
}

impl Played {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Played { scenario, targets: Vec::new(), not_played: BTreeMap::new() }
    }

    pub(crate) fn played(&mut self, target: &str, outcome: Outcome) {
        match self.targets.iter_mut().find(|rounds| rounds.target == target) {
            Some(rounds) => rounds.outcomes.push(outcome),
            None => self.targets.push(Rounds { target: target.to_owned(), outcomes: vec![outcome] }),
        }
    }

    pub(crate) fn not_played(&mut self, target: &str, why: String) {
        self.not_played.insert(target.to_owned(), why);
    }

    fn outcomes(&self, target: &str) -> &[Outcome] {
        self.targets.iter().find(|rounds| rounds.target == target).map_or(&[], |rounds| &rounds.outcomes)
    }

    fn summary(&self, target: &str, figure: &str) -> Option<Summary> {
        Summary::of(self.outcomes(target).iter().filter_map(|outcome| outcome.figures.get(figure).copied()))
    }

    /// How often a figure of the target has that of another one in it, round by round: what slows a whole round down
    /// cancels out.
    fn times(&self, reference: &str, target: &str, figure: &str) -> Option<Summary> {
        ratios(self.outcomes(target), self.outcomes(reference), figure)
    }

    fn errors(&self, target: &str) -> BTreeMap<&str, u64> {
        let mut sum = BTreeMap::new();
        for (what, count) in self.outcomes(target).iter().flat_map(|outcome| &outcome.errors) {
            *sum.entry(what.as_str()).or_default() += count;
        }
        sum
    }
}

/// A figure of some rounds in that of other rounds, one by one.
fn ratios(outcomes: &[Outcome], references: &[Outcome], figure: &str) -> Option<Summary> {
    let ratio = |(outcome, reference): (&Outcome, &Outcome)| {
        let reference = reference.figures.get(figure).copied().filter(|reference| *reference > 0.0)?;
        Some(outcome.figures.get(figure)? / reference)
    };
    Summary::of(outcomes.iter().zip(references).filter_map(ratio))
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        versions: BTreeMap<String, String>,
        scenarios: Vec<Played>,
        budgets: &Budgets,
    ) -> Self {
        let mut judgements = Vec::new();
        for budget in &budgets.budgets {
            let find = |name: &str| scenarios.iter().find(|played| played.scenario.name == name);
            let (target, figure) = (&budget.target, &budget.figure);
            let measured = find(&budget.scenario).and_then(|played| match (&budget.limit, budget.limit.reference()) {
                (Limit::TimesScenario { scenario, .. }, _) => {
                    ratios(played.outcomes(target), find(scenario)?.outcomes(target), figure)
                }
                (_, Some(reference)) => played.times(reference, target, figure),
                (_, None) => played.summary(target, figure),
            });
            judgements.extend(measured.map(|measured| Judgement::new(budget, measured, budgets.noise_percent)));
        }
        Report { machine, versions, scenarios, judgements }
    }

    /// Whether no budget is exceeded and nothing was wrong.
    pub(crate) fn is_good(&self) -> bool {
        let mut outcomes = self.scenarios.iter().flat_map(|played| &played.targets).flat_map(|rounds| &rounds.outcomes);
        outcomes.all(|outcome| outcome.errors.is_empty())
            && self.judgements.iter().all(|judgement| judgement.verdict != Verdict::Exceeded)
    }

    /// Tables for people.
    pub(crate) fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// A picture for each scenario that has a course over time, by the name of its file.
    pub(crate) fn pictures(&self) -> impl Iterator<Item = (String, String)> {
        self.scenarios.iter().flat_map(pictures::pictures)
    }
}
