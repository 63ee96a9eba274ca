//! Who may enter and who may push, seen from outside: real sockets, a real backend, a real issuer.

#[path = "../browser/mod.rs"]
mod headless;
#[path = "../process/mod.rs"]
mod process;

mod api_key;
mod bodies;
mod browser;
mod example;
mod iam;
mod jwt;
mod quota;
mod request_authorizer;
mod scrub;
mod support;
