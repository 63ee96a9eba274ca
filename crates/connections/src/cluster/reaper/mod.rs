//! The reaper: it claims the records of dead nodes, one bucket at a time, and gives a bucket back when its events are
//! over. The flow that takes [`crate::registry::Claims::events`] sends the events.

mod bucket;
mod dead_node;
pub mod scripts;
mod task;
mod unreadable;

pub use task::{Reaper, ReaperSettings};

use task::{BATCH, ReapError, ReaperPass};
