//! The process: everything built from one [`crate::config::Config`], its signals, its end.

mod demo;
mod gateway;
mod open_files;
mod route;
mod serve;

pub use demo::demo;
pub use gateway::{Gateway, StartError};
pub use route::{RouteQuestion, route};
pub use serve::serve;
