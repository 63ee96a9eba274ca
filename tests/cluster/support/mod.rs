#[path = "../../harness/authority.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod authority;
mod backend;
mod certificates;
mod client;
mod cluster;
mod http;
#[path = "../../harness/signature.rs"]
mod signature;
#[path = "../../harness/proxy.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod proxy;

use std::time::Duration;

pub(crate) use authority::Authority;
pub(crate) use client::TestClient;
pub(crate) use cluster::{KEY_SECRET, SECRET, TestCluster, TestNode};
pub(crate) use http::{Http, request};
pub(crate) use proxy::{Mode, TestProxy};
pub(crate) use signature::signed;

/// The lease of all nodes.
pub(crate) const LEASE: Duration = Duration::from_millis(1500);

/// Waits until something holds, for at most twenty seconds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
