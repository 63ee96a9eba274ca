use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::markdown::{number, origin};
use super::svg::{Chart, Line, Panel, draw};
use crate::machine::Machine;
use crate::run::Outcome;
use crate::statistics::Summary;
use crate::vary::Growth;

/// From this ratio to the first value on, a figure counts as one that grows: the same program differs from itself by as
/// much as the rest.
const GROWS_FROM: f64 = 1.2;

/// Everything that was grown.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrowthReport {
    pub(crate) machine: Machine,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) growths: Vec<Grown>,
}

/// One thing that was grown.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Grown {
    pub(crate) growth: Growth,
    pub(crate) steps: Vec<Step>,
}

/// One value with all its rounds.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    pub(crate) value: usize,
    pub(crate) outcomes: Vec<Outcome>,
    /// Why the machine cannot play it.
    pub(crate) not_played: Option<String>,
}

impl Step {
    fn summary(&self, figure: &str) -> Option<Summary> {
        Summary::of(self.outcomes.iter().filter_map(|outcome| outcome.figures.get(figure).copied()))
    }
}

impl GrowthReport {
    /// Whether nothing was wrong.
    pub(crate) fn is_good(&self) -> bool {
        let mut outcomes = self.growths.iter().flat_map(|grown| &grown.steps).flat_map(|step| &step.outcomes);
        outcomes.all(|outcome| outcome.errors.is_empty())
    }

    /// Tables for people.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = origin(&self.machine, &self.versions, &mut text);
        for grown in &self.growths {
            let _ = table(grown, &mut text);
        }
        text
    }

    /// One panel for each growth.
    pub(crate) fn picture(&self) -> String {
        let panels = self.growths.iter().map(|grown| {
            let Growth { figure, target, .. } = &grown.growth;
            // As parts of the largest value, so that all growths share the horizontal axis.
            let largest = grown.growth.values.iter().copied().max().unwrap_or(1) as f64;
            let points = grown
                .steps
                .iter()
                .filter_map(|step| Some((step.value as f64 / largest * 100.0, step.summary(figure)?.median)));
            let values: Vec<_> = grown.growth.values.iter().map(usize::to_string).collect();
            Panel {
                title: format!("{figure} at {} {}", values.join(", "), grown.growth.vary.name()),
                lines: vec![Line { name: target.clone(), points: points.collect() }],
            }
        });
        draw(&Chart {
            title: "Growth; to the right, the parts of the largest value".to_owned(),
            unit: " %",
            panels: panels.collect(),
            marks: Vec::new(),
        })
    }
}

fn table(grown: &Grown, out: &mut String) -> std::fmt::Result {
    let Growth { name, description, scenario, target, vary, figure, .. } = &grown.growth;
    writeln!(out, "\n### {name}\n\n{} Scenario `{scenario}`, target {target}.\n", description.trim())?;
    writeln!(out, "| {} | {figure} | of the first | | MiB RSS | p99 us |\n|---|---|---|---|---|---|", vary.name())?;
    let first = grown.steps.first().and_then(|step| step.summary(figure));
    for step in &grown.steps {
        let cell = |figure: &str| step.summary(figure).map(|summary| number(summary.median)).unwrap_or_default();
        let summary = step.summary(figure);
        let ratio = summary.zip(first).map(|(summary, first)| summary.median / first.median);
        let measured = match summary {
            Some(summary) if summary.rounds > 1 => {
                format!("{} ({} to {})", number(summary.median), number(summary.min), number(summary.max))
            }
            Some(summary) => number(summary.median),
            None => String::new(),
        };
        let verdict = match ratio {
            Some(ratio) if ratio >= GROWS_FROM => "**grows**",
            Some(_) => "flat",
            None => "not measured",
        };
        let ratio = ratio.map(|ratio| format!("{ratio:.2}x")).unwrap_or_default();
        let (rss, p99) = (cell("rss_mib"), cell("p99_us"));
        writeln!(out, "| {} | {measured} | {ratio} | {verdict} | {rss} | {p99} |", step.value)?;
    }
    for step in &grown.steps {
        if let Some(why) = &step.not_played {
            writeln!(out, "\n{}: {why}.", step.value)?;
        }
        for (what, count) in step.outcomes.iter().flat_map(|outcome| &outcome.errors) {
            writeln!(out, "\n**{}: {count} times: {what}.** Figures with errors count for nothing.", step.value)?;
        }
    }
    Ok(())
}
