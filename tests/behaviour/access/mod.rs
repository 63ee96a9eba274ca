//! Access control, seen from outside: real sockets, a real backend, a real issuer.

mod api_key;
mod bodies;
mod browser;
mod example;
mod iam;
mod jwt;
mod quota;
mod request_authorizer;
mod scrub;
