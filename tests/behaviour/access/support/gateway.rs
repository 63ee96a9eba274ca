use std::net::SocketAddr;

use tidegate::app::Gateway;
use tidegate::config::{self, Config};

/// A gateway in this process, on free ports.
pub(crate) struct TestGateway {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) internal: SocketAddr,
}

impl TestGateway {
    pub(crate) async fn start(yaml: &str) -> Self {
        let gateway = Gateway::start(load(yaml)).await.expect("a gateway");
        TestGateway { address: gateway.public_address(), internal: gateway.internal_address(), gateway }
    }

    /// What SIGHUP does.
    pub(crate) fn reload(&mut self, yaml: &str) {
        self.gateway.reload(load(yaml)).expect("a good configuration");
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    pub(crate) async fn metrics(&self) -> String {
        super::client::get(self.internal, "/metrics").await
    }
}

/// A configuration whose listeners take free ports.
fn load(yaml: &str) -> Config {
    let text = format!(
        "{yaml}\nlisteners:\n  public: {{ address: '127.0.0.1:0' }}\n  internal: {{ address: '127.0.0.1:0' }}\n"
    );
    config::load(&text, &|_| None).unwrap_or_else(|problems| panic!("{problems:?} in\n{text}"))
}
