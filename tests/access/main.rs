//! Who may enter and who may push, seen from outside: real sockets, a real backend, a real issuer.

#[path = "../process/mod.rs"]
mod process;

mod api_key;
mod example;
mod iam;
mod jwt;
mod quota;
mod request_authorizer;
mod support;
