//! The log of the process. It goes to stderr: text on a terminal, JSON otherwise. `RUST_LOG` selects the lines, `info`
//! by default, and the selection can be changed while the process runs. Lines of libraries that would show requests or
//! messages are never logged, whatever is selected.
//!
//! Logging never waits: lines go into a bounded queue, and one thread writes them (`queue.rs`). Of each kind of line a
//! limited number is written in a second and the others are counted (`budget.rs`), whatever causes them and whatever is
//! selected.

mod budget;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use clap::ValueEnum;
use thiserror::Error;
use tracing::{Level, Metadata, error};
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use budget::{Budget, BudgetLayer};
use queue::{Queue, Room};

use tidegate_core::lock::lock;

/// Libraries whose lines below `info` show signed requests with their tokens, or messages. These lines are never
/// logged.
const INDISCREET: [&str; 2] = ["aws_sigv4", "tungstenite"];

/// The filter directive that is always added: reports about missing lines, and panics.
const ALWAYS: &str = "tidegate::logging=info";

/// Target of the lines about the log itself.
const TARGET: &str = "tidegate::logging";

/// Targets of lines that an operator has enabled, with a line for each event. They leave room in the queue for other
/// lines.
const BULK: [&str; 2] = ["tidegate::execution", "tidegate::data_trace"];

/// The logging of this process, once it is started.
static LOGGING: OnceLock<Logging> = OnceLock::new();

#[derive(Debug)]
struct Logging {
    queue: Arc<Queue>,
    filter: reload::Handle<EnvFilter, Registry>,
    /// The filter as it was written.
    text: Mutex<String>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// A JSON object on each line.
    Json,
}

/// Starts logging, once for the process.
///
/// # Errors
/// Returns an error if `RUST_LOG` is not a valid filter, logging was started before, or the thread cannot be started.
pub fn start(format: Option<LogFormat>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let text = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => filter,
        _ => "info".to_owned(),
    };
    let (filter, handle) = reload::Layer::new(parse(&text)?);
    let queue = Arc::new(Queue::default());
    let budget = Arc::new(Budget::new(Arc::clone(&queue)));
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(Writer(Arc::clone(&queue)));
    let lines = match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => lines.with_ansi(terminal).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
    };
    let layers = tracing_subscriber::registry().with(filter).with(filter_fn(is_discreet));
    layers.with(BudgetLayer(Arc::clone(&budget))).with(lines).try_init()?;
    let writing = Arc::clone(&queue);
    thread::Builder::new().name("log".to_owned()).spawn(move || writing.run(|within| budget.report(within)))?;
    // The default hook writes to stderr itself, and waits for it.
    std::panic::set_hook(Box::new(panicked));
    // This is reached only once: a second start has failed above.
    let _ = LOGGING.set(Logging { queue, filter: handle, text: Mutex::new(text) });
    Ok(())
}

fn parse(text: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::builder().parse(text)?;
    Ok(filter.add_directive(ALWAYS.parse()?))
}

fn is_discreet(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || !INDISCREET.contains(&library)
}

/// Logs a panic.
fn panicked(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(
        target: TARGET,
        thread = thread.name(),
        location = panic.location().map(tracing::field::display),
        backtrace,
        "a thread panicked: {}",
        panic.payload_as_str().unwrap_or("no text")
    );
}

/// A writer that puts lines into the queue.
struct Writer(Arc<Queue>);

struct Line<'a> {
    queue: &'a Queue,
    room: Room,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: &self.0, room: Room::Usual }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        let target = metadata.target();
        let room = match *metadata.level() > Level::INFO || BULK.contains(&target) {
            true => Room::Bulk,
            false if target == TARGET => Room::Own,
            false => Room::Usual,
        };
        Line { queue: &self.0, room }
    }
}

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.append(line, self.room);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes text for people to stderr after all log lines so far, without waiting. If logging was not started, writes it
/// directly.
pub fn say(text: &str) {
    match LOGGING.get() {
        Some(logging) => logging.queue.append(format!("{text}\n").as_bytes(), Room::Usual),
        None => eprintln!("{text}"),
    }
}

/// Returns true if so many lines wait that a caller with many more should wait before it logs them.
pub fn is_filling() -> bool {
    LOGGING.get().is_some_and(|logging| logging.queue.is_filling())
}

/// A guard that waits for the last lines when it is dropped, until they are written, but only as long as stderr takes
/// them and for a short time.
#[derive(Debug)]
pub struct LastLines;

impl Drop for LastLines {
    fn drop(&mut self) {
        if let Some(logging) = LOGGING.get() {
            logging.queue.finish();
        }
    }
}

/// The reason why the filter was not changed.
#[derive(Debug, Error)]
pub enum FilterError {
    #[error("the filter cannot be changed: tidegate did not start the logging of this process")]
    NotStarted,
    #[error("not a filter such as `debug` or `info,tidegate::execution=debug`")]
    Invalid(#[source] ParseError),
}

/// Returns the filter in force, in the syntax of `RUST_LOG`. Returns `None` if logging was not started.
pub fn filter() -> Option<String> {
    let text = lock(&LOGGING.get()?.text);
    Some(text.clone())
}

/// Replaces the filter: from now on the lines that `text` selects are logged.
///
/// # Errors
/// Returns `Invalid` if `text` is not a filter, and `NotStarted` if logging was not started by [`start`].
pub fn set_filter(text: &str) -> Result<(), FilterError> {
    let text = text.trim();
    let filter = parse(text).map_err(FilterError::Invalid)?;
    let logging = LOGGING.get().ok_or(FilterError::NotStarted)?;
    logging.filter.reload(filter).map_err(|_| FilterError::NotStarted)?;
    text.clone_into(&mut *lock(&logging.text));
    Ok(())
}
