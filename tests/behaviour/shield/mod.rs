//! Defences of the gateway: TLS, floods, proxies, hostile requests, calls to backends. Black box,
//! on loopback alone; every flood is bounded in count and time.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

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

use std::net::SocketAddr;

/// The bytes of a handshake for `/prod` with this Host, and with these lines behind it.
fn handshake(host: &str, lines: &str) -> Vec<u8> {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let lines = lines.lines().filter_map(|line| line.split_once(": "));
    let headers: Vec<(&str, &str)> = [("Host", host)].into_iter().chain(lines).collect();
    tidegate_testing::handshake(address, "/prod", &headers)
}
