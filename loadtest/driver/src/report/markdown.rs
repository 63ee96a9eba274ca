use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{FLOOR, Played, Report, Rounds};
use crate::budget::Verdict;
use crate::machine::Machine;
use crate::run::Rates;
use crate::statistics::Summary;

/// Figures in the order of the tables, with what people call them. The JSON has all.
const ROWS: [(&str, &str); 28] = [
    ("rss_kib_per_connection", "KiB RSS per connection"),
    ("pss_kib_per_connection", "KiB PSS per connection"),
    ("memory_left_percent", "% of the growth left after closing"),
    ("operations_per_second", "operations a second"),
    ("cpu_ms_per_1000", "CPU ms per 1000"),
    ("cpu_seconds_per_million", "CPU s per million deliveries"),
    ("join_bytes_each", "bytes RSS per membership"),
    ("leave_cpu_ms_per_1000", "CPU ms per 1000 that leave"),
    ("fanout_rss_kib", "KiB RSS more while fanning out"),
    ("fanout_rss_frames", "that in frames"),
    ("round_ms", "ms for one round"),
    ("recovery_seconds", "s until all are back"),
    ("capacity_per_second", "messages a second when saturated"),
    ("offered_times", "times that offered in the worst phase"),
    ("goodput_percent", "% of that answered in the worst phase"),
    ("p50_us", "p50 us"),
    ("p99_us", "p99 us"),
    ("p999_us", "p99.9 us"),
    ("reply_p50_us", "p50 us of replies"),
    ("reply_p99_us", "p99 us of replies"),
    ("post_p50_us", "p50 us of posts"),
    ("post_p99_us", "p99 us of posts"),
    ("rss_mib", "MiB RSS"),
    ("rss_drift_percent", "% RSS more in the last quarter than in the first"),
    ("p99_drift_times", "times the p99 of the first quarter in the last"),
    ("payload_mib_per_second", "MiB/s of payload"),
    ("backend_cpu_percent", "CPU % of the backend"),
    ("driver_cpu_percent", "CPU % of the driver"),
];

/// The streams of an overload; the last is by how much the driver was late itself.
const STREAMS: [&str; 6] = ["message", "health", "post", "get", "delete", "driver"];

pub(super) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    origin(&report.machine, &report.versions, out)?;
    for played in &report.scenarios {
        scenario(played, out)?;
    }
    budgets(report, out)
}

/// Where figures come from.
pub(super) fn origin(machine: &Machine, versions: &BTreeMap<String, String>, out: &mut String) -> std::fmt::Result {
    let Machine { cores, cpu, memory_mib, kernel, open_files, load_average, load_average_end, .. } = machine;
    let Machine { date, commit, rustc, .. } = machine;
    writeln!(out, "- {date} UTC, commit {commit}, {rustc}")?;
    writeln!(out, "- {cores} cores of {cpu}, {memory_mib} MiB, Linux {kernel}, {open_files} open files")?;
    writeln!(out, "- load average {load_average} at the start, {load_average_end} at the end")?;
    for (target, version) in versions {
        writeln!(out, "- {target}: {version}")?;
    }
    writeln!(
        out,
        "\nLoad, backend and target share the cores, so only the target's CPU per operation, memory, and ratios within a \
         run mean anything."
    )?;
    Ok(())
}

fn scenario(played: &Played, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n### {}\n\n{}\n", played.scenario.name, played.scenario.description.trim())?;
    if !played.targets.is_empty() {
        let names: Vec<_> = played.targets.iter().map(|rounds| rounds.target.as_str()).collect();
        writeln!(out, "| | {} |", names.join(" | "))?;
        writeln!(out, "|---|{}", "---|".repeat(names.len()))?;
        for (figure, name) in ROWS {
            let cells: Vec<_> = names.iter().map(|target| cell(played, target, figure)).collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                writeln!(out, "| {name} | {} |", cells.join(" | "))?;
            }
        }
    }
    for (target, why) in &played.not_played {
        writeln!(out, "\n{target} did not play it: {why}.")?;
    }
    for rounds in &played.targets {
        phases(rounds, out)?;
        for (what, count) in played.errors(&rounds.target) {
            writeln!(out, "\n**{}: {count} times: {what}.** Figures with errors count for nothing.", rounds.target)?;
        }
        for (what, count) in rounds.outcomes.last().into_iter().flat_map(|outcome| &outcome.notes) {
            writeln!(out, "\n{}: {count} times: {what}.", rounds.target)?;
        }
    }
    Ok(())
}

/// What each phase of an overload was like, in the last round.
fn phases(rounds: &Rounds, out: &mut String) -> std::fmt::Result {
    let Some(outcome) = rounds.outcomes.last().filter(|outcome| !outcome.phases.is_empty()) else { return Ok(()) };
    writeln!(
        out,
        "\n| {}: load | offered/s | answered/s | shed/s | held back/s | p50 / p99 ms of {} |",
        rounds.target,
        STREAMS.join(" | p50 / p99 ms of ")
    )?;
    writeln!(out, "|---|---|---|---|---|{}", "---|".repeat(STREAMS.len()))?;
    for phase in &outcome.phases {
        let Rates { offered, answered, shed, held_back } = phase.rates;
        write!(out, "| {}x | {offered:.0} | {answered:.0} | {shed:.0} | {held_back:.0} |", phase.load)?;
        for stream in STREAMS {
            match phase.latencies.get(stream) {
                Some(latency) => {
                    write!(out, " {} / {} |", number(latency.p50_us / 1000.0), number(latency.p99_us / 1000.0))?;
                }
                None => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

fn cell(played: &Played, target: &str, figure: &str) -> String {
    let Some(summary) = played.summary(target, figure) else { return String::new() };
    let mut cell = number(summary.median);
    if summary.rounds > 1 {
        let _ = write!(cell, " ±{:.0} %", summary.spread_percent() / 2.0);
    }
    if target != FLOOR
        && let Some(ratio) = played.times(FLOOR, target, figure)
    {
        let _ = write!(cell, " ({:.2}x)", ratio.median);
    }
    cell
}

fn budgets(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.judgements.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n### Budgets\n\n| scenario | target | figure | measured | budget | |\n|---|---|---|---|---|---|")?;
    for judgement in &report.judgements {
        let budget = &judgement.budget;
        let unit = budget.limit.reference().map(|reference| format!("x {reference}")).unwrap_or_default();
        let Summary { median, min, max, .. } = judgement.measured;
        let stretch = budget.stretch.map(|stretch| format!(" (stretch {stretch})")).unwrap_or_default();
        let verdict = match judgement.verdict {
            Verdict::Met if budget.stretch.is_some_and(|stretch| median <= stretch) => "met, and the stretch",
            Verdict::Met => "met",
            Verdict::WithinNoise => "not met, within noise",
            Verdict::Exceeded => "**exceeded**",
        };
        writeln!(
            out,
            "| {} | {} | {} | {} ({} to {}) {unit} | {}{unit}{stretch} | {verdict} |",
            budget.scenario,
            budget.target,
            budget.figure,
            number(median),
            number(min),
            number(max),
            budget.limit.value(),
        )?;
    }
    Ok(())
}

/// Three significant digits.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
