//! Figures over time: one sample a second.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::process::usage_aside;
use crate::recorder::Recorder;
use crate::statistics::Summary;

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

/// Samples under load from which on the last quarter is compared with the first.
const GROWTH_MIN: usize = 20;

/// By how much memory and p99 of the last quarter of a run differ from its first quarter: medians, while under load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Drift {
    pub(crate) rss_percent: f64,
    pub(crate) p99_times: f64,
}

/// None if the run was too short to tell.
pub(crate) fn drift(samples: &[Sample]) -> Option<Drift> {
    let loaded: Vec<_> = samples.iter().filter(|sample| sample.p99_us > 0.0).collect();
    if loaded.len() < GROWTH_MIN {
        return None;
    }
    let quarter = loaded.len() / 4;
    let (first, last) = (&loaded[..quarter], &loaded[loaded.len() - quarter..]);
    let median = |samples: &[&Sample], value: fn(&Sample) -> f64| {
        Summary::of(samples.iter().map(|sample| value(sample))).map(|summary| summary.median)
    };
    let ratio = |value| Some(median(last, value)? / median(first, value)?);
    Some(Drift {
        rss_percent: (ratio(|sample| sample.rss_mib)? - 1.0) * 100.0,
        p99_times: ratio(|sample| sample.p99_us)?,
    })
}

/// Samples until dropped, into `samples`.
pub(crate) async fn sample(pids: Vec<i32>, recorder: Arc<Recorder>, samples: &mut Vec<Sample>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let usage = usage_aside(&pids).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_is_compared_with_the_first_under_load() {
        let sample = |rss_mib, p99_us| Sample { rss_mib, p99_us, ..Sample::default() };
        let mut samples = vec![sample(1.0, 0.0); 50];
        samples.extend(vec![sample(100.0, 200.0); 15]);
        assert_eq!(drift(&samples), None, "too short");
        samples.extend(vec![sample(110.0, 500.0); 15]);
        let Drift { rss_percent, p99_times } = drift(&samples).unwrap();
        assert!((rss_percent - 10.0).abs() < 0.01 && (p99_times - 2.5).abs() < 0.01, "{rss_percent} {p99_times}");
    }
}
