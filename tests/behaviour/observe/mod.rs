//! Telemetry of a running gateway for operators: metrics, logs, traces, health and reasons. One file for each subject.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod cluster;
mod collector;
mod programs;

mod access_log;
mod causes;
mod deploy;
mod explain;
mod health;
mod log;
mod metrics;
mod rubbish;
mod scrub;
mod traces;
mod variables;
