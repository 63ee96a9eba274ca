//! Lines over time, in SVG by hand: two panels, one line for each target.

use std::fmt::Write as _;

use super::Played;
use crate::sampler::Sample;

const WIDTH: f64 = 720.0;
const PANEL_HEIGHT: f64 = 200.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const GAP: f64 = 50.0;

/// Samples from which on there is a course to see.
const SAMPLES_MIN: usize = 3;

/// One for each target; told apart without colours by their order in the legend.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

/// What a panel shows.
struct Panel {
    title: &'static str,
    value: fn(&Sample) -> f64,
}

const PANELS: [Panel; 2] = [
    Panel { title: "RSS, MiB", value: |sample| sample.rss_mib },
    Panel { title: "p99 of each second, ms", value: |sample| sample.p99_us / 1000.0 },
];

/// The first round of each target over time; none if it was too short for that.
pub(super) fn picture(played: &Played) -> Option<String> {
    let courses: Vec<(&str, &[Sample])> = played
        .targets
        .iter()
        .filter_map(|rounds| Some((rounds.target, rounds.outcomes.first()?.samples.as_slice())))
        .filter(|(_, samples)| samples.len() >= SAMPLES_MIN)
        .collect();
    if courses.is_empty() {
        return None;
    }
    let height = TOP + PANELS.len() as f64 * (PANEL_HEIGHT + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    // Writing to a string does not fail.
    let _ = legend(&mut svg, &played.scenario.name, &courses);
    for (number, panel) in PANELS.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL_HEIGHT + GAP);
        let _ = draw(&mut svg, panel, top, &courses);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn legend(svg: &mut String, name: &str, courses: &[(&str, &[Sample])]) -> std::fmt::Result {
    writeln!(svg, "<text x=\"{LEFT}\" y=\"16\" font-weight=\"bold\">{name}</text>")?;
    for (number, (target, _)) in courses.iter().enumerate() {
        let x = LEFT + 160.0 + number as f64 * 110.0;
        let colour = COLOURS[number % COLOURS.len()];
        writeln!(svg, "<rect x=\"{x}\" y=\"7\" width=\"12\" height=\"10\" fill=\"{colour}\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"16\">{target}</text>", x + 16.0)?;
    }
    Ok(())
}

fn draw(svg: &mut String, panel: &Panel, top: f64, courses: &[(&str, &[Sample])]) -> std::fmt::Result {
    let samples = || courses.iter().flat_map(|(_, samples)| samples.iter());
    let end = samples().map(|sample| sample.seconds).fold(1.0, f64::max);
    let highest = samples().map(panel.value).fold(0.0, f64::max);
    let highest = if highest > 0.0 { highest * 1.1 } else { 1.0 };
    let (bottom, width) = (top + PANEL_HEIGHT, WIDTH - LEFT - RIGHT);
    writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", top - 6.0, panel.title)?;
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let y = bottom - part * PANEL_HEIGHT;
        writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/>", LEFT + width)?;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.1}</text>",
            LEFT - 6.0,
            y + 4.0,
            part * highest
        )?;
        let x = LEFT + part * width;
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{:.0} s</text>", bottom + 16.0, part * end)?;
    }
    for (number, (_, samples)) in courses.iter().enumerate() {
        let mut points = String::new();
        for sample in *samples {
            let x = LEFT + sample.seconds / end * width;
            let y = bottom - (panel.value)(sample) / highest * PANEL_HEIGHT;
            write!(points, "{x:.1},{y:.1} ")?;
        }
        let colour = COLOURS[number % COLOURS.len()];
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            points.trim_end()
        )?;
    }
    Ok(())
}
