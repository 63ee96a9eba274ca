//! The client against real sockets on the loopback.

mod answers;
mod burst;
mod protocols;
mod reuse;
mod support;
