//! Figures over time: one sample a second.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::process::usage;
use crate::recorder::Recorder;

const INTERVAL: Duration = Duration::from_secs(1);

/// The target at one moment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sample {
    /// Since the run began.
    pub(crate) seconds: f64,
    pub(crate) rss_mib: f64,
    pub(crate) pss_mib: f64,
    pub(crate) cpu_ms: f64,
    pub(crate) operations: u64,
    /// Of what was due since the last sample; zero if nothing was.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Samples until dropped, into `samples`.
pub(crate) async fn sample(pids: Vec<i32>, recorder: Arc<Recorder>, samples: &mut Vec<Sample>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let usage = usage(&pids);
        let latencies = recorder.recent_latencies();
        samples.push(Sample {
            seconds: Duration::from_nanos(recorder.now()).as_secs_f64(),
            rss_mib: usage.rss_kib as f64 / 1024.0,
            pss_mib: usage.pss_kib as f64 / 1024.0,
            cpu_ms: usage.cpu_ms,
            operations: recorder.operations(),
            p50_us: latencies.p50,
            p99_us: latencies.p99,
        });
    }
}
