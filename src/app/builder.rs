use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::gateway::{Gateway, StartError};
use crate::config::Config;
use tidegate_connections::cluster::{ClusterSettings, Membership};
use tidegate_http::http_client::HttpClient;

/// Builds a [`Gateway`] from a configuration. Whatever is not given is made as the configuration says.
pub struct GatewayBuilder {
    pub(super) config: Config,
    pub(super) http_client: Box<dyn FnOnce(TaskTracker) -> HttpClient + Send>,
    pub(super) cluster: Option<GivenCluster>,
}

/// A cluster whose table of members is kept true outside the gateway.
pub(super) struct GivenCluster {
    pub(super) settings: ClusterSettings,
    pub(super) membership: Arc<Membership>,
}

impl GatewayBuilder {
    pub(super) fn new(config: Config) -> Self {
        GatewayBuilder { config, http_client: Box::new(HttpClient::new), cluster: None }
    }

    /// Calls backends by the HTTP client that `make` returns. Its tasks run on the tracker, which shutdown waits for.
    pub fn http_client(self, make: impl FnOnce(TaskTracker) -> HttpClient + Send + 'static) -> Self {
        GatewayBuilder { http_client: Box::new(make), ..self }
    }

    /// Makes the gateway one of several nodes, whose members are those of `membership`. The caller keeps that table true:
    /// the gateway asks no Redis for it.
    pub fn cluster(self, settings: ClusterSettings, membership: Arc<Membership>) -> Self {
        GatewayBuilder { cluster: Some(GivenCluster { settings, membership }), ..self }
    }

    /// Opens all listeners and serves. Nothing is started if anything fails.
    ///
    /// # Errors
    /// The APIs cannot be compiled, an address cannot be taken, certificates cannot be read, or the settings of the cluster
    /// are not complete.
    pub async fn start(self) -> Result<Gateway, StartError> {
        Gateway::start(self).await
    }
}
