//! Which pictures a scenario has.

use super::svg::{Chart, Line, Panel, draw};
use super::{Played, Rounds};
use crate::run::Moment;
use crate::sampler::Sample;

/// Samples from which on there is a course to see.
const SAMPLES_MIN: usize = 3;

/// By the name of their file, without its end.
pub(super) fn pictures(played: &Played) -> Vec<(String, String)> {
    let name = &played.scenario.name;
    let overloads = played
        .targets
        .iter()
        .filter_map(|rounds| Some((format!("{name}-{}", rounds.target), draw(&overload(name, rounds)?))));
    let mut pictures: Vec<_> = overloads.collect();
    if pictures.is_empty() {
        pictures.extend(over_time(played).map(|chart| (name.clone(), draw(&chart))));
    }
    pictures
}

/// Memory and latency in the first round of each target; none if it was too short for that.
fn over_time(played: &Played) -> Option<Chart> {
    let courses: Vec<(&str, &[Sample])> = played
        .targets
        .iter()
        .filter_map(|rounds| Some((rounds.target.as_str(), rounds.outcomes.first()?.samples.as_slice())))
        .filter(|(_, samples)| samples.len() >= SAMPLES_MIN)
        .collect();
    let panel = |title: &str, value: fn(&Sample) -> f64| Panel {
        title: title.to_owned(),
        lines: courses
            .iter()
            .map(|(target, samples)| Line {
                name: (*target).to_owned(),
                points: samples.iter().map(|sample| (sample.seconds, value(sample))).collect(),
            })
            .collect(),
    };
    (!courses.is_empty()).then(|| Chart {
        title: played.scenario.name.clone(),
        unit: " s",
        panels: vec![
            panel("RSS, MiB", |sample| sample.rss_mib),
            panel("p99 of each second, ms", |sample| sample.p99_us / 1000.0),
        ],
        marks: Vec::new(),
    })
}

/// The first round of an overload: what became of the messages, latencies, memory.
fn overload(name: &str, rounds: &Rounds) -> Option<Chart> {
    let outcome = rounds.outcomes.first()?;
    let course = &outcome.course;
    let line = |name: &str, value: &dyn Fn(&Moment) -> Option<f64>| Line {
        name: name.to_owned(),
        points: course.iter().filter_map(|moment| Some((moment.seconds, value(moment)?))).collect(),
    };
    let p99_ms =
        |stream: &'static str| line(stream, &move |moment| moment.p99_us.get(stream).map(|p99_us| p99_us / 1000.0));
    let panel = |title: &str, lines| Panel { title: title.to_owned(), lines };
    (course.len() >= SAMPLES_MIN).then(|| Chart {
        title: format!("{name}, {}", rounds.target),
        unit: " s",
        panels: vec![
            panel(
                "thousand messages a second",
                vec![
                    line("offered", &|moment| Some(moment.rates.offered / 1000.0)),
                    line("answered", &|moment| Some(moment.rates.answered / 1000.0)),
                    line("shed", &|moment| Some(moment.rates.shed / 1000.0)),
                    line("held back", &|moment| Some(moment.rates.held_back / 1000.0)),
                ],
            ),
            panel("p99 of messages, ms", vec![p99_ms("message")]),
            panel("p99 of the others, ms", vec![p99_ms("health"), p99_ms("post"), p99_ms("get"), p99_ms("delete")]),
            panel("RSS, MiB", vec![line("RSS", &|moment| Some(moment.rss_mib))]),
        ],
        marks: outcome.phases.iter().map(|phase| (phase.begins, format!("{}x", phase.load))).collect(),
    })
}
