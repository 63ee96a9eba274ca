//! What the gateway withstands and whom it trusts: TLS, floods, proxies, hostile requests, calls to backends. Black box,
//! on loopback alone; every flood is bounded in count and time.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod support;

mod audit;
mod certificates;
mod domains;
mod edge;
mod files;
mod flood;
mod internal;
mod outbound;
mod production;
mod proxy;
mod slow;
mod tls;
