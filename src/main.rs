//! The `tidegate` command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate::app::ConnectionsArguments;
use tidegate::error_chain::chain;
use tidegate::telemetry::logging::{self, LastLines, LogFormat};
use tidegate::{app, config};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A self-hosted WebSocket gateway with the contract of Amazon API Gateway's WebSocket APIs.
#[derive(Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// How log lines on stderr look: text on a terminal, JSON otherwise. RUST_LOG chooses what is logged.
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway.
    Serve(ConfigFile),
    /// Runs the gateway with a sample chat backend and a chat page, all on 127.0.0.1.
    Demo {
        /// Port of the public listener, or with --gateway of the chat page; 0 takes any free one.
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// A gateway that runs already, such as ws://127.0.0.1:8080/prod: only the backend and the page are run, for
        /// all that are named.
        #[arg(long = "gateway", value_name = "URL")]
        gateways: Vec<String>,
    },
    /// Validates a configuration and prints every problem in it.
    Check(ConfigFile),
    /// Tells what a message would do, and why: route, integration, reply. Calls nobody.
    Route {
        /// The apiId; may be left out if there is one API.
        #[arg(long)]
        api: Option<String>,
        /// The stageName; may be left out if the API has one stage.
        #[arg(long)]
        stage: Option<String>,
        /// The message as a client sends it.
        #[arg(long)]
        message: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Prints the JSON Schema of the configuration.
    Schema,
    /// Shows all nodes of the cluster, as Redis has them.
    Nodes {
        #[command(flatten)]
        file: ConfigFile,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Shows connections of all nodes, as Redis has them.
    Connections {
        #[command(flatten)]
        file: ConfigFile,
        /// Only those of this API.
        #[arg(long, value_name = "API_ID")]
        api: Option<String>,
        /// Only those of this stage.
        #[arg(long)]
        stage: Option<String>,
        /// Only those that this node has recorded.
        #[arg(long, value_name = "NODE_ID")]
        node: Option<String>,
        /// Only how many there are.
        #[arg(long)]
        count: bool,
        /// One JSON object to a line instead of a table.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG", default_value = "config/tidegate.yaml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    // Dropped last, when the process ends, and also if it panics.
    let _last_lines = LastLines;
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Serve(file) => run(arguments.log_format, app::serve(file.config)),
        Command::Demo { port, gateways } if gateways.is_empty() => run(arguments.log_format, app::demo(port)),
        Command::Demo { port, gateways } => run(arguments.log_format, app::demo_chat(port, gateways)),
        Command::Check(file) => check(&file.config),
        Command::Route { api, stage, message, file } => {
            let question = app::RouteQuestion { api: api.as_deref(), stage: stage.as_deref(), message: &message };
            app::route(&file.config, &question).map(|text| print!("{text}"))
        }
        Command::Nodes { file, json } => run(arguments.log_format, async move { app::nodes(&file.config, json).await }),
        Command::Connections { file, api, stage, node, count, json } => {
            let asked = ConnectionsArguments { api, stage, node, count, json };
            run(arguments.log_format, async move { app::connections(&file.config, asked).await })
        }
        Command::Schema => {
            print!("{}", config::schema_text());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            logging::say(&problem);
            ExitCode::FAILURE
        }
    }
}

fn check(path: &Path) -> Result<(), String> {
    let loaded =
        config::load_file(path, &|name| std::env::var(name).ok()).map_err(|error| chain(&error).to_string())?;
    for warning in &loaded.warnings {
        eprintln!("warning: {}", warning.in_file(path));
    }
    println!("{}: fine", path.display());
    Ok(())
}

fn run(log_format: Option<LogFormat>, command: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    logging::start(log_format).map_err(|error| format!("could not start logging: {error}"))?;
    // Never more workers than cores; on one core a single thread is a quarter cheaper.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = if cores == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build().map_err(|error| format!("could not start the runtime: {error}"))?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}
