//! Logs go to stderr: text on a terminal, JSON otherwise. `RUST_LOG` chooses what is logged, `info` by default, and can
//! be changed while the process runs. Whatever it chooses, what libraries would show of requests and messages is left out.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use clap::ValueEnum;
use thiserror::Error;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// Libraries that show signed requests with their tokens, or messages, below `info`: that is never logged.
const INDISCREET: [&str; 2] = ["aws_sigv4", "tungstenite"];

/// The filter in force. Logging is one for the process, so this is too.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging, once for the process.
///
/// # Errors
/// `RUST_LOG` holds no filter, or logging was started before.
pub fn start(format: Option<LogFormat>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => EnvFilter::builder().parse(filter)?,
        _ => EnvFilter::new("info"),
    };
    let terminal = io::stderr().is_terminal();
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => lines.with_ansi(terminal).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(filter_fn(is_discreet)).with(lines).try_init()?;
    // Only the one who started logging gets here.
    let _ = FILTER.set(handle);
    Ok(())
}

fn is_discreet(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || !INDISCREET.contains(&library)
}

/// Why the filter was not changed.
#[derive(Debug, Error)]
pub enum FilterError {
    #[error("logging is not tidegate's own in this process")]
    NotStarted,
    #[error("not a filter such as `debug` or `info,tidegate::execution=debug`")]
    Invalid(#[source] tracing_subscriber::filter::ParseError),
}

/// What is logged now, as `RUST_LOG` would say it.
pub fn filter() -> Option<String> {
    FILTER.get()?.with_current(EnvFilter::to_string).ok()
}

/// Logs what this filter chooses from now on.
///
/// # Errors
/// The text is no filter, or logging was not started by [`start`].
pub fn set_filter(text: &str) -> Result<(), FilterError> {
    let filter = EnvFilter::builder().parse(text.trim()).map_err(FilterError::Invalid)?;
    FILTER.get().ok_or(FilterError::NotStarted)?.reload(filter).map_err(|_| FilterError::NotStarted)
}
