//! registry
mod settings;

pub use settings::{RegistrySettings, RegistryType};
