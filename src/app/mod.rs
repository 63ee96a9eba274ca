//! The process: it is built from one [`crate::config::Config`], handles signals, and drains before it ends.

mod builder;
mod demo;
mod gateway;
mod inspect;
mod member;
mod open_files;
mod route;
mod serve;

pub use builder::GatewayBuilder;
pub use demo::{demo, demo_chat};
pub use gateway::{Gateway, StartError};
pub use inspect::{ConnectionsArguments, connections, nodes};
pub use route::{RouteQuestion, route};
pub use serve::serve;
