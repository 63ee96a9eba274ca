use std::sync::Arc;

use super::call::{Called, IntegrationRequest};
use super::compiled::{Integration, IntegrationKind};
use crate::http_client::{Backend, Counts, HttpClient};
use crate::telemetry::metrics::BackendFill;

/// Calls backends.
#[derive(Clone, Debug)]
pub struct IntegrationClient {
    http_client: HttpClient,
}

impl IntegrationClient {
    /// Whether any backend is saturated.
    pub fn is_saturated(&self) -> bool {
        self.http_client.is_saturated()
    }

    /// Calls through this HTTP client.
    pub fn new(http_client: HttpClient) -> Self {
        IntegrationClient { http_client }
    }

    /// How full the pools of all backends are.
    pub fn backends(&self) -> Vec<BackendFill> {
        let fill = |backend: Arc<Backend>| {
            let Counts { open, idle, waiting } = backend.counts();
            BackendFill { backend: backend.origin(), open, idle, waiting }
        };
        self.http_client.backends().into_iter().map(fill).collect()
    }

    /// Sends one event to `integration`. The outcome is an error if the call failed, as the contract counts it.
    pub async fn call(&self, integration: &Integration, request: &IntegrationRequest<'_>) -> Called {
        match &integration.kind {
            IntegrationKind::AwsProxy(proxy) => proxy.call(&self.http_client, request, integration.timeout).await,
            IntegrationKind::HttpProxy(proxy) => proxy.call(&self.http_client, request, integration.timeout).await,
        }
    }
}
