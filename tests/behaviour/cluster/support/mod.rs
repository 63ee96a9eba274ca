mod backend;
mod certificates;
mod client;
mod cluster;
mod http;

use std::time::Duration;

pub(crate) use crate::harness::{Authority, Mode, TestProxy, signed};
pub(crate) use client::TestClient;
pub(crate) use cluster::{KEY_SECRET, SECRET, TestCluster, TestNode};
pub(crate) use http::{Http, request};

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
