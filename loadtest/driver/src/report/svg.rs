//! Lines in SVG by hand: panels one below the other, each with its own lines, over one horizontal axis.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const PANEL_HEIGHT: f64 = 180.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const GAP: f64 = 60.0;

/// Most points of a line: of more, the highest of each stretch is drawn. Keeps a picture of a long run small.
const POINTS_MAX: usize = 300;

/// One for each line of a panel.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

/// A picture.
pub(super) struct Chart {
    pub(super) title: String,
    /// What stands behind the numbers of the horizontal axis.
    pub(super) unit: &'static str,
    pub(super) panels: Vec<Panel>,
    /// Where something begins, and what.
    pub(super) marks: Vec<(f64, String)>,
}

pub(super) struct Panel {
    pub(super) title: String,
    pub(super) lines: Vec<Line>,
}

pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) fn draw(chart: &Chart) -> String {
    let height = TOP + chart.panels.len() as f64 * (PANEL_HEIGHT + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>\n",
        chart.title
    );
    for (number, panel) in chart.panels.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL_HEIGHT + GAP);
        // Writing to a string does not fail.
        let _ = draw_panel(&mut svg, chart, panel, top);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, chart: &Chart, panel: &Panel, top: f64) -> std::fmt::Result {
    let points = || chart.panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    let begin = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min).min(1.0);
    let end = points().map(|(x, _)| *x).fold(begin + 1.0, f64::max);
    let highest = panel.lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y).fold(0.0, f64::max);
    let highest = if highest > 0.0 { highest * 1.1 } else { 1.0 };
    let (bottom, width) = (top + PANEL_HEIGHT, WIDTH - LEFT - RIGHT);
    let x_of = |x: f64| LEFT + (x - begin) / (end - begin) * width;
    legend(svg, panel, top - 6.0)?;
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let y = bottom - part * PANEL_HEIGHT;
        writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/>", LEFT + width)?;
        let (x, label) = (LEFT - 6.0, number(part * highest));
        writeln!(svg, "<text x=\"{x}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", y + 4.0)?;
        let (x, label) = (LEFT + part * width, begin + part * (end - begin));
        let (y, unit) = (bottom + 16.0, chart.unit);
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label:.0}{unit}</text>")?;
    }
    for (x, what) in &chart.marks {
        let x = x_of(*x);
        writeln!(svg, "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>")?;
        writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">{what}</text>", x + 3.0, top + 12.0)?;
    }
    for (index, line) in panel.lines.iter().enumerate() {
        let mut drawn = String::new();
        for (x, y) in thin(&line.points) {
            write!(drawn, "{:.1},{:.1} ", x_of(x), bottom - y / highest * PANEL_HEIGHT)?;
        }
        let (drawn, colour) = (drawn.trim_end(), COLOURS[index % COLOURS.len()]);
        writeln!(svg, "<polyline points=\"{drawn}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>")?;
    }
    Ok(())
}

/// The title of a panel, and its lines from the right.
fn legend(svg: &mut String, panel: &Panel, y: f64) -> std::fmt::Result {
    writeln!(svg, "<text x=\"{LEFT}\" y=\"{y}\">{}</text>", panel.title)?;
    let mut x = WIDTH - RIGHT;
    for (index, line) in panel.lines.iter().enumerate().rev() {
        // As wide as its letters, nearly.
        x -= 26.0 + 6.5 * line.name.len() as f64;
        let colour = COLOURS[index % COLOURS.len()];
        writeln!(svg, "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"10\" fill=\"{colour}\"/>", y - 9.0)?;
        writeln!(svg, "<text x=\"{}\" y=\"{y}\">{}</text>", x + 16.0, line.name)?;
    }
    Ok(())
}

fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretches = points.chunks(points.len().div_ceil(POINTS_MAX).max(1));
    stretches.filter_map(|stretch| stretch.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))).collect()
}

fn number(value: f64) -> String {
    match value.abs() {
        10.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_a_long_run_stays_small_and_keeps_its_peak() {
        let mut points: Vec<_> = (0..100_000).map(|x| (f64::from(x), 1.0)).collect();
        points[54_321].1 = 9.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS_MAX && thinned.contains(&(54_321.0, 9.0)));
        let line = |name: &str| Line { name: name.to_owned(), points: points.clone() };
        let panel = || Panel { title: "RSS".to_owned(), lines: vec![line("floor"), line("tidegate")] };
        let panels = vec![panel(), panel()];
        let svg = draw(&Chart { title: "soak".to_owned(), unit: " s", panels, marks: vec![(5.0, "2x".to_owned())] });
        assert!(svg.len() < 60_000, "{} bytes", svg.len());
    }
}
