//! config
mod settings;

pub use settings::{Config, DrainSettings};
