//! From a file and the environment to a [`Config`], made of each room's own settings.
//!
//! The way of a text, one file for each step: `yaml.rs` reads it and keeps the line of every key, with `surrogates.rs` for
//! what JSON spells otherwise; `interpolate.rs` fills in `${env:NAME}`, `validate.rs` holds it against the schema of `schema.rs` and `explain.rs` puts what that
//! finds into words, `formats.rs` looks at texts that must parse (addresses, networks), `check.rs` at what only the
//! whole can tell. `load.rs` is the flow; `secrets.rs` knows which values are never shown.
//!
//! A file that is being written is empty first, or half there. So an empty whole whose parts are right is a mistake: no
//! API, an API without a route or a stage, a secret or a certificate without content.
//!
//! Invariants: every mistake is reported, not only the first, though questions about meaning wait until the form is
//! right. No [`Problem`] prints a value that came from the environment, since it may be a secret.

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
