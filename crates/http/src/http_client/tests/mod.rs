//! Tests of the client with real sockets on the loopback interface.

mod answers;
mod burst;
mod protocols;
mod reuse;
mod support;
