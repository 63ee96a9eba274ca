//! The registry as it is built: one contract suite that runs with memory and with the replica, and what happens to the
//! replica when Redis is slow, away, full, read-only or forgetful. Each test starts its own `redis-server`.

mod cluster;
mod contract;
mod fenced;
mod gateway;
mod memory_per_record;
mod membership;
mod operators;
mod outage;
mod reaper;
mod reaping;
mod records;
mod tls;

use std::time::Duration;

/// Longest time that a connection to Redis, or a step of a reaper, may take.
const SOON: Duration = Duration::from_secs(20);

/// The API of a configuration that is about something else: there must be one.
const API: &str = "apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n    integrations: { b: { integrationType: AWS_PROXY, integrationUri: 'http://127.0.0.1:9/' } }\n    routes: { $default: { target: integrations/b } }\n    stages: { prod: {} }\n";
