//! The process: everything built from one [`Config`], its signals, its end.

mod demo;
mod gateway;
mod open_files;
mod serve;

pub use demo::demo;
pub use gateway::{ClusterStart, Gateway, StartError};
pub use serve::serve;
