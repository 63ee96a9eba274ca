//! tidegate
pub mod clock;
pub mod id;
pub mod apigatewayv2;
pub mod request_context;
pub mod limits;
pub mod deployment;
pub mod registry;
pub mod data_plane;
pub mod server;
pub mod config;
