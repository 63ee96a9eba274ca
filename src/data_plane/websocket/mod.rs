//! The flows of the client's side: connect, session, message.

mod connect;
mod message;
mod refresh;
mod session_loop;

pub use connect::{Admitted, UpgradeRequest, connect};
pub use message::fallback;
pub use session_loop::serve;
