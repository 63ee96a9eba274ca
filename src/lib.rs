//! A self-hosted WebSocket gateway.
pub mod clock;
pub mod id;
pub mod apigatewayv2;
pub mod request_context;
pub mod expression;
pub mod limits;
pub mod http_client;
