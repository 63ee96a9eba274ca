//! The flows of the client's side: connect, session, message.

mod admitted;
mod connect;
mod message;
mod refresh;
mod session_loop;

pub use admitted::Admitted;
pub use connect::{UpgradeRequest, connect};
pub use message::fallback;
pub use session_loop::serve;
