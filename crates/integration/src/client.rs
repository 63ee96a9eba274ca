use std::sync::Arc;

use super::call::{Called, IntegrationRequest};
use super::compiled::{Integration, IntegrationKind};
use tidegate_http::http_client::{Backend, Counts, HttpClient};
use tidegate_telemetry::metrics::BackendGauges;

/// The client that calls the backends of integrations.
#[derive(Clone, Debug)]
pub struct IntegrationClient {
    http_client: HttpClient,
}

impl IntegrationClient {
    /// Returns true if any backend is saturated.
    pub fn is_saturated(&self) -> bool {
        self.http_client.is_saturated()
    }

    /// Returns a client that calls backends through `http_client`.
    pub fn new(http_client: HttpClient) -> Self {
        IntegrationClient { http_client }
    }

    /// Returns the number of connections and waiting calls of every backend.
    pub fn backends(&self) -> Vec<BackendGauges> {
        let fill = |backend: Arc<Backend>| {
            let Counts { open, idle, waiting } = backend.counts();
            BackendGauges { backend: backend.origin(), open, idle, waiting }
        };
        self.http_client.backends().into_iter().map(fill).collect()
    }

    /// Sends one event to `integration`. The outcome is an [`IntegrationError`](super::IntegrationError) if there is no
    /// usable answer.
    pub async fn call(&self, integration: &Integration, request: &IntegrationRequest<'_>) -> Called {
        match &integration.kind {
            IntegrationKind::AwsProxy(proxy) => proxy.call(&self.http_client, request, integration.timeout).await,
            IntegrationKind::HttpProxy(proxy) => proxy.call(&self.http_client, request, integration.timeout).await,
        }
    }
}
