//! Access logs: one line for each connect, message, disconnect and call of `@connections`, in the format of its stage.
//!
//! A format is compiled with its stage ([`AccessLog`]). An event appends its line to a buffer in memory and does not
//! wait; one task for each destination (`writer.rs`) writes the collected lines. A line that finds the buffer full, or
//! cannot be written, is lost and counted.
//!
//! Differs from AWS: `integration.*`, `responseLength` and `responseLatency` have values, which AWS leaves out for
//! WebSocket APIs; `tidegate.*` are additions; a format need not contain `$context.requestId`. The line of a disconnect
//! is written when its `$disconnect` has been delivered.

mod format;
mod variables;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::EventRecord;
use format::LineFormat;
use tidegate_resources::AccessLogSettings;
use writer::Sink;

pub use format::InvalidFormat;
pub use writer::AccessLogs;

/// The destination of lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// The access log of one stage, compiled.
#[derive(Debug)]
pub struct AccessLog {
    format: LineFormat,
    destination: Destination,
    /// The sink of the destination. It is set when the stage's deployment comes into force.
    sink: OnceLock<Arc<Sink>>,
}

impl AccessLog {
    /// Compiles the settings of a stage.
    ///
    /// # Errors
    /// [`InvalidFormat`]: the format is empty or too long, has more than one line, or names an unknown variable.
    pub fn compile(settings: &AccessLogSettings) -> Result<Self, InvalidFormat> {
        let destination = match settings.destination.as_str() {
            "stdout" => Destination::Stdout,
            "stderr" => Destination::Stderr,
            path => Destination::File(path.into()),
        };
        Ok(AccessLog { format: LineFormat::parse(&settings.format)?, destination, sink: OnceLock::new() })
    }

    /// Writes the line of an event.
    pub(super) fn write(&self, record: &EventRecord<'_>) {
        if let Some(sink) = self.sink.get() {
            sink.append(&self.format.line(record));
        }
    }
}
