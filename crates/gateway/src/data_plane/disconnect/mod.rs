//! `$disconnect`: one event for each connection that has ended, delivered until its backend has answered.
//!
//! [`attempt::report`] puts an ended connection into the queue of its integration (`queue.rs`), which decides when events
//! are sent; `attempt.rs` makes one attempt. [`take_over`] does the same for connections of dead nodes. `retired.rs` keeps
//! what an event needs from a configuration that a reload has replaced.

pub(super) mod attempt;
pub(super) mod queue;
pub(super) mod retired;
mod settings;
mod take_over;

pub use settings::DisconnectSettings;
pub use take_over::take_over;
