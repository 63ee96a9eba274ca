//! data_plane
mod settings;

pub use settings::DisconnectSettings;
