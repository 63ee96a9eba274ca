//! What a target may cost: `loadtest/budgets.yaml`.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::statistics::Summary;

/// Where the budgets are, seen from the root of the repository.
pub(crate) const FILE: &str = "loadtest/budgets.yaml";

/// Rounds from which on their own spread is the noise.
const ROUNDS_WITH_A_SPREAD: usize = 3;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Budgets {
    /// By how much the same program differs from itself, for runs with too few rounds to tell.
    pub(crate) noise_percent: f64,
    pub(crate) budgets: Vec<Budget>,
}

/// The most that one figure of one target may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) scenario: String,
    pub(crate) figure: String,
    pub(crate) target: String,
    pub(crate) limit: Limit,
    /// What would be better still.
    pub(crate) stretch: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Limit {
    /// In the figure's own unit.
    Max(f64),
    /// As many times the same figure of the floor, round by round.
    TimesFloor(f64),
    /// As many times the same figure of tidegate with its defaults, round by round.
    TimesTidegate(f64),
    /// As many times the same figure of the same target in another scenario, round by round.
    #[serde(rename_all = "camelCase")]
    TimesScenario { scenario: String, times: f64 },
}

/// A budget against what was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Judgement {
    pub(crate) budget: Budget,
    /// In the unit of the limit.
    pub(crate) measured: Summary,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Met,
    /// The median is over the limit, and noise can explain it.
    WithinNoise,
    Exceeded,
}

impl Budgets {
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        serde_saphyr::from_str(&text).with_context(|| format!("could not read {}", path.display()))
    }
}

impl Limit {
    pub(crate) fn value(&self) -> f64 {
        match self {
            Limit::Max(value) | Limit::TimesFloor(value) | Limit::TimesTidegate(value) => *value,
            Limit::TimesScenario { times, .. } => *times,
        }
    }

    /// The target or the scenario that the measured one is compared with.
    pub(crate) fn reference(&self) -> Option<&str> {
        match self {
            Limit::Max(_) => None,
            Limit::TimesFloor(_) => Some("floor"),
            Limit::TimesTidegate(_) => Some("tidegate"),
            Limit::TimesScenario { scenario, .. } => Some(scenario),
        }
    }
}

impl Judgement {
    pub(crate) fn new(budget: &Budget, measured: Summary, noise_percent: f64) -> Self {
        let limit = budget.limit.value();
        let is_over = if measured.rounds >= ROUNDS_WITH_A_SPREAD {
            measured.min > limit
        } else {
            measured.median > limit * (1.0 + noise_percent / 100.0)
        };
        let verdict = match (measured.median <= limit, is_over) {
            (true, _) => Verdict::Met,
            (false, false) => Verdict::WithinNoise,
            (false, true) => Verdict::Exceeded,
        };
        Judgement { budget: budget.clone(), measured, verdict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_exceeded_only_by_more_than_noise() {
        let check = |rounds: &[f64], verdict| {
            let budget = Budget {
                scenario: "dispatch".to_owned(),
                figure: "cpu_ms_per_1000".to_owned(),
                target: "tidegate".to_owned(),
                limit: Limit::TimesFloor(1.3),
                stretch: None,
            };
            let measured = Summary::of(rounds.iter().copied()).unwrap();
            assert_eq!(Judgement::new(&budget, measured, 15.0).verdict, verdict, "{rounds:?}");
        };
        check(&[1.2], Verdict::Met);
        check(&[1.4], Verdict::WithinNoise);
        check(&[1.6], Verdict::Exceeded);
        check(&[1.2, 1.5, 1.6], Verdict::WithinNoise);
        check(&[1.31, 1.5, 1.6], Verdict::Exceeded);
    }
}
