//! Joins what the commands wrote as JSON to one page of results, in a fixed order, so that two pages are compared easily.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::micro;
use crate::report::{GrowthReport, Report};

/// What to join.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the commands have written their JSON.
    #[arg(long, value_name = "DIR", default_value = "target/loadtest")]
    from: PathBuf,

    /// The page.
    #[arg(long, value_name = "FILE", default_value = "loadtest/RESULTS.md")]
    out: PathBuf,

    /// Where its pictures go; those that lie there are removed.
    #[arg(long, value_name = "DIR", default_value = "loadtest/plots")]
    plots: PathBuf,
}

/// The parts of the page: file, title, and the command that writes it.
const PARTS: [(&str, &str, &str); 7] = [
    ("bench", "Against the floor", "make bench"),
    ("growth", "Growth", "make bench-growth"),
    ("observed", "What an access log and metrics of each route cost", "make bench-observed"),
    ("peers", "Beside others", "make bench-peers"),
    ("pushpin", "Beside Pushpin, at what it delivers", "make bench-peers"),
    ("soak", "Soak", "make bench-soak"),
    ("micro", "Hot functions, in instructions", "make bench-micro"),
];

/// Pictures that the page has; more would say no more.
const PICTURES: [&str; 6] = ["overload-tidegate", "overload-slow-backend-tidegate", "slow", "mixed", "growth", "soak"];

/// Largest picture that is kept beside the page, in bytes.
const PICTURE_MAX_BYTES: usize = 60_000;

/// Writes the page and its pictures.
pub(crate) fn results(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { from, out, plots } = arguments;
    let mut page = "# Results\n\nWritten by `make bench-results` from what the other commands measured. How it is \
                    measured: [README.md](README.md). What it means for a node of a given size: \
                    [../docs/capacity.md](../docs/capacity.md). A figure is the median of its rounds, ± half of what lies \
                    between the best and the worst; in brackets it stands beside the floor's, round by round.\n"
        .to_owned();
    let mut pictures = Vec::new();
    for (file, title, command) in PARTS {
        let path = from.join(format!("{file}.json"));
        let part = match path.exists() {
            true => read(file, &path).with_context(|| format!("could not read {}", path.display()))?,
            false => Part { text: format!("Not measured; `{command}` does it.\n"), pictures: Vec::new() },
        };
        write!(page, "\n## {title}\n\n{}", part.text)?;
        for (name, picture) in part.pictures {
            if PICTURES.contains(&name.as_str()) {
                write!(page, "\n![{name}]({})\n", link(out, plots, &name))?;
                pictures.push((name, picture));
            }
        }
    }
    std::fs::create_dir_all(plots)?;
    for entry in std::fs::read_dir(plots)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "svg") {
            std::fs::remove_file(path)?;
        }
    }
    for (name, picture) in pictures {
        anyhow::ensure!(picture.len() <= PICTURE_MAX_BYTES, "{name}.svg has {} bytes", picture.len());
        std::fs::write(plots.join(format!("{name}.svg")), picture)?;
    }
    std::fs::write(out, page).with_context(|| format!("could not write {}", out.display()))?;
    println!("{}", out.display());
    Ok(())
}

struct Part {
    text: String,
    /// By name.
    pictures: Vec<(String, String)>,
}

fn read(file: &str, path: &Path) -> anyhow::Result<Part> {
    let json = std::fs::read(path)?;
    Ok(match file {
        "growth" => {
            let report: GrowthReport = serde_json::from_slice(&json)?;
            Part { text: report.markdown(), pictures: vec![("growth".to_owned(), report.picture())] }
        }
        "micro" => Part { text: micro::table(&micro::read(&json)?), pictures: Vec::new() },
        _ => {
            let report: Report = serde_json::from_slice(&json)?;
            Part { text: report.markdown(), pictures: report.pictures().collect() }
        }
    })
}

/// A picture as seen from the page.
fn link(out: &Path, plots: &Path, name: &str) -> String {
    let directory = out.parent().and_then(|directory| plots.strip_prefix(directory).ok()).unwrap_or(plots);
    format!("{}/{name}.svg", directory.display())
}
