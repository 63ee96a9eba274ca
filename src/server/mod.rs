//! server
mod settings;

pub use settings::{ConnectionsApi, InternalListener, ListenerSettings, PublicListener, TrustedProxy};
