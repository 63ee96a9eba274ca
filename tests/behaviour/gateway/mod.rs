//! Black-box tests: whole nodes, real sockets. One file for each subject; `support` is the harness.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod connect;
mod events;
mod http_proxy;
mod message;
mod throttle;
mod management_api;
mod sdk;
mod callback_url;
mod close;
mod liveness;
mod disconnect;
mod ended;
mod handshake;
mod raw_requests;
mod reload;
mod process;
mod shutdown;
mod pool;
mod http2;
mod metrics;
