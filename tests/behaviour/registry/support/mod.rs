mod node;
mod wait;

use std::time::Duration;

pub(crate) use crate::harness::{RedisServer, free_port};
pub(crate) use node::{BROWSER, Node, NodeOptions, SOON, connection, outbox};
pub(crate) use wait::eventually;

/// The lease in tests. A sixth of it is Redis's time to answer, which a busy machine must be able to keep.
pub(crate) const LEASE: Duration = Duration::from_millis(3000);

/// The API of a configuration that is about something else: there must be one.
pub(crate) const API: &str = "apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n    integrations: { b: { integrationType: AWS_PROXY, integrationUri: 'http://127.0.0.1:9/' } }\n    routes: { $default: { target: integrations/b } }\n    stages: { prod: {} }\n";
