mod calls;
mod handshake;
mod liveness;
mod support;
