use std::net::SocketAddr;

use tidegate::app::Gateway;
use tidegate::config::Config;
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

use crate::settings::load;
use crate::{HttpResponse, RawClient, Settings, TestBackend, TestClient, eventually, handshake, http, within};

/// A whole node, in this process.
pub struct TestGateway {
    pub gateway: Gateway,
}

impl TestGateway {
    /// Starts one whose configuration is this text, and whose listeners are on free ports.
    pub async fn start(yaml: &str) -> Self {
        Self::start_with(on_free_ports(yaml)).await
    }

    /// Starts one with this configuration.
    pub async fn start_with(config: Config) -> Self {
        TestGateway { gateway: Gateway::builder(config).start().await.expect("the gateway starts") }
    }

    /// Returns where clients connect.
    pub fn public(&self) -> SocketAddr {
        self.gateway.public_address()
    }

    /// Returns where health, metrics and `@connections` are.
    pub fn internal(&self) -> SocketAddr {
        self.gateway.internal_address()
    }

    /// Returns the URL of a path on the public listener.
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.public())
    }

    /// Connects a client, which has to be let in.
    pub async fn connect(&self, target: &str) -> TestClient {
        self.try_connect(target, &[]).await.expect("let in")
    }

    /// Connects a client with these headers, which has to be let in.
    pub async fn connect_with(&self, target: &str, headers: &[(&str, &str)]) -> TestClient {
        self.try_connect(target, headers).await.expect("let in")
    }

    /// Connects a client with these headers.
    ///
    /// # Errors
    /// The gateway refused it.
    pub async fn try_connect(&self, target: &str, headers: &[(&str, &str)]) -> Result<TestClient, tungstenite::Error> {
        TestClient::connect(self.public(), target, headers).await
    }

    /// Connects a client to `/prod`; returns it with its id, as the backend learns it.
    pub async fn client(&self, backend: &TestBackend) -> (TestClient, String) {
        backend.skip("CONNECT");
        let client = self.connect("/prod").await;
        let id = backend.next("CONNECT").await.connection_id().to_owned();
        (client, id)
    }

    /// Sends a handshake; returns the answer, whatever it is.
    pub async fn handshake(&self, target: &str, headers: &[(&str, &str)]) -> HttpResponse {
        let mut client = RawClient::connect(self.public()).await;
        client.send(&handshake(self.public(), target, headers)).await;
        client.response().await
    }

    /// Calls `@connections` on the internal listener.
    pub async fn call(&self, method: &str, id: &str, body: &[u8]) -> HttpResponse {
        http(self.internal(), method, &format!("/prod/@connections/{id}"), &[], body).await
    }

    /// Posts to a connection on the internal listener.
    pub async fn post(&self, id: &str, body: impl AsRef<[u8]>) -> HttpResponse {
        self.call("POST", id, body.as_ref()).await
    }

    /// Returns the page of metrics.
    pub async fn metrics(&self) -> String {
        http(self.internal(), "GET", "/metrics", &[], b"").await.text().to_owned()
    }

    /// Returns the value of a metric: all its labels together, or those that stand behind the name.
    pub async fn metric(&self, name: &str) -> i64 {
        let page = self.metrics().await;
        let lines =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    }

    /// Waits until no `$disconnect` is on its way.
    pub async fn settled(&self) {
        eventually("every $disconnect is settled", async || {
            self.metric("tidegate_disconnect_events_pending").await == 0
        })
        .await;
    }

    /// Proves that another client is still served.
    pub async fn expect_alive(&self, backend: &TestBackend) {
        let (mut client, id) = self.client(backend).await;
        assert_eq!(self.post(&id, "alive").await.status, 200);
        assert_eq!(client.next_text().await, "alive");
        client.close(Some((1000, ""))).await;
    }

    /// Puts other settings in force, as SIGHUP does.
    pub fn reload(&mut self, settings: &Settings) {
        self.gateway.reload(settings.config()).expect("a good configuration");
    }

    /// Puts another text in force, for a gateway that was started with one.
    pub fn reload_text(&mut self, yaml: &str) {
        self.gateway.reload(on_free_ports(yaml)).expect("a good configuration");
    }

    /// Goes down, after every connection has ended and its backend knows it.
    pub async fn drain(self) {
        within("a drain", self.gateway.drain(CancellationToken::new())).await;
    }
}

fn on_free_ports(yaml: &str) -> Config {
    load(&format!(
        "{yaml}\nlisteners:\n  public: {{ address: '127.0.0.1:0' }}\n  internal: {{ address: '127.0.0.1:0' }}\n"
    ))
}
