//! The configuration: reads a file and the environment into a [`Config`], which is made of each module's own settings.
//!
//! `load.rs` is the flow, with one file for each step:
//!
//! - `yaml.rs` parses the text and keeps the line of every key. `surrogates.rs` handles the escapes that JSON has and
//!   YAML has not.
//! - `interpolate.rs` fills in `${env:NAME}` and `${file:/PATH}`.
//! - `validate.rs` checks the values against the schema (`schema.rs`), and `explain.rs` words the mistakes.
//! - `formats.rs` checks texts that must parse, such as addresses and networks.
//! - `check.rs` checks everything that takes several settings together.
//!
//! `secrets.rs` lists the values that are never printed.
//!
//! A file that is being written may be empty or incomplete. So these are mistakes, although each part is valid: no API,
//! an API without a route or a stage, a secret or a certificate without content.
//!
//! Invariants: all mistakes are reported, not only the first, but `check.rs` runs only after the values fit the schema
//! and the formats. No [`Problem`] prints a value from the environment, since it may be a secret.

mod settings;
mod problem;
mod source;
mod secrets;
mod surrogates;
mod yaml;
mod interpolate;
mod schema;
mod explain;
mod validate;
mod formats;
mod check;
mod check_edge;
mod load;
mod shipped;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod access_mistakes;

pub use check::warnings;
pub use load::{FILE_MAX_BYTES, LoadError, Loaded, load, load_file, load_with_warnings};
pub use problem::Problem;
pub use schema::{schema, schema_text};
pub use settings::{Config, DrainSettings};
pub use shipped::{ACCESS_YAML, DEMO_YAML, TIDEGATE_YAML};
