//! `tidegate-loadtest`: what a connection and a message cost, measured against the floor.
//!
//! One run is one scenario on one target: the driver starts a fresh backend and a fresh target, each a process of its
//! own, plays the scenario from this process, and reads what the target used from `/proc`. Runs of several targets are
//! interleaved, so that a slow minute of the machine meets all of them.
//!
//! ```text
//! main -> bench, growth -> run (one of run/*.rs) -> client, poster (paced by pacer) -> recorder
//!                    target, process, sampler: what is measured
//!      -> statistics -> budget -> report (Markdown, JSON, SVG)
//! main -> results: the page of what was measured
//! ```

mod machine;
mod process;
mod scenario;
mod vary;
mod recorder;
mod pacer;
mod backend;
mod target;
mod payload;
mod client;
mod poster;
mod statistics;
mod sampler;
mod run;
mod budget;
mod play;
mod report;
mod bench;
mod growth;
mod micro;
mod results;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Measures what a connection and a message cost.
#[derive(Parser)]
#[command(name = "tidegate-loadtest", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays scenarios on targets, interleaved, and compares. Exits 1 if a budget is exceeded by more than the spread
    /// of the rounds, or if anything was answered wrongly.
    Bench(Box<bench::Arguments>),
    /// Changes one thing at a time: connections, routes, nodes. What one connection and one message cost must stay.
    Growth(Box<growth::Arguments>),
    /// Prints what gungraun counted, as a table.
    Micro {
        /// What `cargo bench --package tidegate-micro -- --output-format=json` has printed.
        #[arg(long, value_name = "FILE")]
        json: PathBuf,
    },
    /// Joins what the others have written as JSON to one page, with its pictures.
    Results(results::Arguments),
    /// Lists the scenarios.
    List {
        /// Where the scenarios are.
        #[arg(long, value_name = "DIR", default_value = scenario::DIRECTORY)]
        scenarios: PathBuf,
    },
    /// The backend of the measurements: answers at once. The driver starts it by itself.
    Backend {
        /// Where it listens; port 0 takes any free one. The address that was taken is the first line on stdout.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// How long it takes for an answer.
        #[arg(long, default_value_t = 0)]
        delay_millis: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `false` if a budget is exceeded.
fn run(command: Command) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::List { scenarios } => {
            for scenario in scenario::load_all(&scenarios)? {
                let length = if scenario.short { "short" } else { "long" };
                println!("{:<16} {length:<6} {}", scenario.name, scenario.description.trim());
            }
            Ok(true)
        }
        Command::Backend { listen, delay_millis } => {
            runtime.block_on(backend::serve(listen, Duration::from_millis(delay_millis))).map(|()| true)
        }
        Command::Micro { json } => {
            print!("{}", micro::table(&micro::read(&std::fs::read(json)?)?));
            Ok(true)
        }
        Command::Results(arguments) => results::results(&arguments).map(|()| true),
        Command::Bench(arguments) => runtime.block_on(until_interrupted(bench::bench(&arguments))),
        Command::Growth(arguments) => runtime.block_on(until_interrupted(growth::growth(&arguments))),
    }
}

/// Dropping a run ends the processes that it started.
async fn until_interrupted(run: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<bool> {
    tokio::select! {
        outcome = run => outcome,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}
