//! The `tidegate` command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate::app::ConnectionsArguments;
use tidegate::{app, config};
use tidegate_core::error_chain::chain;
use tidegate_telemetry::logging::{self, LastLines, LogFormat};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A self-hosted WebSocket gateway with the contract of Amazon API Gateway's WebSocket APIs.
#[derive(Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Format of log lines on stderr; by default text on a terminal and JSON otherwise. RUST_LOG sets the log filter.
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway.
    Serve(ConfigFile),
    /// Runs the gateway with a sample chat backend and a chat page, all on 127.0.0.1.
    Demo {
        /// Port of the public listener, or of the chat page with --gateway; 0 takes any free port.
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// URL of a running gateway, such as ws://127.0.0.1:8080/prod; may be given several times. Only the sample
        /// backend and the chat page are started then.
        #[arg(long = "gateway", value_name = "URL")]
        gateways: Vec<String>,
    },
    /// Validates a configuration and prints every problem in it.
    Check(ConfigFile),
    /// Shows which route, integration and reply a message would get, and why. Calls no backend.
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
    /// Shows all nodes of the cluster, as recorded in Redis.
    Nodes {
        #[command(flatten)]
        file: ConfigFile,
        /// Prints one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Shows connections of all nodes, as recorded in Redis.
    Connections {
        #[command(flatten)]
        file: ConfigFile,
        /// Shows only connections of this API.
        #[arg(long, value_name = "API_ID")]
        api: Option<String>,
        /// Shows only connections of this stage.
        #[arg(long)]
        stage: Option<String>,
        /// Shows only connections that this node has recorded.
        #[arg(long, value_name = "NODE_ID")]
        node: Option<String>,
        /// Prints only the number of connections.
        #[arg(long)]
        count: bool,
        /// Prints one JSON object per line instead of a table.
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
    // There are never more workers than cores. On one core a single-threaded runtime is a quarter cheaper.
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
