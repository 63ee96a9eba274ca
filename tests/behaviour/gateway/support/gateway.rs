use std::net::SocketAddr;

use tidegate::app::Gateway;
use tidegate::config::{self, Config};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

use super::{HttpResponse, LIMIT, RawClient, TestBackend, TestClient, eventually, handshake, http, within};

/// The text of a configuration with one API `chat`, one integration `backend` and the stages `prod` and `test`, in
/// the parts that tests change. `$default` and `ask` are two-way, `tell` is one-way.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    backend: String,
    public: String,
    internal: String,
    top: String,
    integration: String,
    timeout_millis: u32,
    routes: String,
    stage: String,
    stages: Vec<&'static str>,
    api: String,
    apis: String,
}

impl Settings {
    pub(crate) fn aws_proxy(backend: &TestBackend) -> Self {
        Self::of(&backend.url(), "AWS_PROXY")
    }

    pub(crate) fn http_proxy(backend: &TestBackend) -> Self {
        Self::of(&backend.url(), "HTTP_PROXY")
    }

    /// A backend at any URL.
    pub(crate) fn of(backend: &str, integration_type: &str) -> Self {
        let one_way =
            ["$connect", "$disconnect", "tell"].map(|key| format!("{key}: {{ target: integrations/backend }}"));
        let two_way = ["$default", "ask"].map(|key| {
            format!("{key}: {{ target: integrations/backend, routeResponseSelectionExpression: $default }}")
        });
        Settings {
            backend: backend.to_owned(),
            public: "connectionsApi: NONE".to_owned(),
            internal: "connectionsApi: NONE".to_owned(),
            top: String::new(),
            integration: format!("integrationType: {integration_type}"),
            timeout_millis: 20_000,
            routes: [one_way.as_slice(), two_way.as_slice()].concat().join(", "),
            stage: String::new(),
            stages: vec!["prod", "test"],
            api: String::new(),
            apis: String::new(),
        }
    }

    /// Settings of the public listener, in place of `connectionsApi: NONE`.
    pub(crate) fn public(mut self, settings: &str) -> Self {
        settings.clone_into(&mut self.public);
        self
    }

    /// Settings of the internal listener.
    pub(crate) fn internal(mut self, settings: &str) -> Self {
        settings.clone_into(&mut self.internal);
        self
    }

    /// A section of the file, such as `limits: { idleTimeoutSeconds: 1 }`.
    pub(crate) fn section(mut self, text: &str) -> Self {
        self.top.push_str(text);
        self.top.push('\n');
        self
    }

    pub(crate) fn timeout_millis(mut self, millis: u32) -> Self {
        self.timeout_millis = millis;
        self
    }

    /// More settings of the integration.
    pub(crate) fn integration(mut self, settings: &str) -> Self {
        self.integration.push_str(", ");
        self.integration.push_str(settings);
        self
    }

    /// All routes, in place of the usual ones.
    pub(crate) fn routes(mut self, routes: &str) -> Self {
        routes.clone_into(&mut self.routes);
        self
    }

    /// One more route.
    pub(crate) fn route(mut self, route: &str) -> Self {
        self.routes.push_str(", ");
        self.routes.push_str(route);
        self
    }

    /// Settings of the stage.
    pub(crate) fn stage(mut self, settings: &str) -> Self {
        settings.clone_into(&mut self.stage);
        self
    }

    /// Takes one of the stages `prod` and `test` away.
    pub(crate) fn without_stage(mut self, name: &str) -> Self {
        self.stages.retain(|stage| *stage != name);
        self
    }

    /// More settings of the API.
    pub(crate) fn api(mut self, setting: &str) -> Self {
        self.api.push_str(setting);
        self.api.push_str(", ");
        self
    }

    /// One more API with the same routes.
    pub(crate) fn another_api(mut self, api_id: &str) -> Self {
        let api = self.api_text();
        self.apis.push_str(&format!("  {api_id}: {api}\n"));
        self
    }

    fn api_text(&self) -> String {
        let Settings { integration, timeout_millis, routes, stage, stages, api, .. } = self;
        let stages: Vec<String> = stages.iter().map(|name| format!("{name}: {{ {stage} }}")).collect();
        let stages = stages.join(", ");
        let expression = if api.contains("routeSelectionExpression") {
            ""
        } else {
            "routeSelectionExpression: $request.body.action, "
        };
        let uri =
            if integration.contains("integrationUri") { "" } else { "integrationUri: \"${env:BACKEND}/events\", " };
        format!(
            "{{ {expression}{api}integrations: {{ backend: {{ {uri}timeoutInMillis: {timeout_millis}, {integration} }} }}, \
             routes: {{ {routes} }}, stages: {{ {stages} }} }}"
        )
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> String {
        let Settings { public, internal, top, apis, .. } = self;
        format!(
            "listeners:\n  public: {{ address: 127.0.0.1:0, {public} }}\n  internal: {{ address: 127.0.0.1:0, {internal} }}\n\
             {top}apis:\n  chat: {}\n{apis}",
            self.api_text()
        )
    }

    /// The environment that the text needs.
    pub(crate) fn environment(&self, name: &str) -> Option<String> {
        (name == "BACKEND").then(|| self.backend.clone())
    }

    pub(crate) fn config(&self) -> Config {
        let text = self.text();
        config::load(&text, &|name| self.environment(name)).unwrap_or_else(|problems| {
            let problems: Vec<String> = problems.iter().map(|problem| format!("{problem:?}")).collect();
            panic!("{}\n{text}", problems.join("\n"))
        })
    }

    pub(crate) async fn start(&self) -> TestGateway {
        TestGateway { gateway: Gateway::start(self.config()).await.expect("the gateway starts") }
    }
}

/// A whole node, in this process.
pub(crate) struct TestGateway {
    pub(crate) gateway: Gateway,
}

impl TestGateway {
    pub(crate) fn public(&self) -> SocketAddr {
        self.gateway.public_address()
    }

    pub(crate) fn internal(&self) -> SocketAddr {
        self.gateway.internal_address()
    }

    /// Connects a client, which has to be let in.
    pub(crate) async fn connect(&self, target: &str) -> TestClient {
        self.try_connect(target, &[]).await.expect("let in")
    }

    pub(crate) async fn connect_with(&self, target: &str, headers: &[(&'static str, &'static str)]) -> TestClient {
        self.try_connect(target, headers).await.expect("let in")
    }

    pub(crate) async fn try_connect(
        &self,
        target: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<TestClient, tungstenite::Error> {
        TestClient::connect(self.public(), target, headers).await
    }

    /// Connects a client to `/prod`; with its id, as the backend learns it.
    pub(crate) async fn client(&self, backend: &TestBackend) -> (TestClient, String) {
        backend.skip("CONNECT");
        let client = self.connect("/prod").await;
        let id = backend.next("CONNECT").await.connection_id().to_owned();
        (client, id)
    }

    /// A handshake and whatever is answered.
    pub(crate) async fn handshake(&self, target: &str, headers: &[(&str, &str)]) -> HttpResponse {
        let mut client = RawClient::connect(self.public()).await;
        client.send(&handshake(self.public(), target, headers)).await;
        client.response().await
    }

    /// A call of `@connections` on the internal listener.
    pub(crate) async fn call(&self, method: &str, id: &str, body: &[u8]) -> HttpResponse {
        http(self.internal(), method, &format!("/prod/@connections/{id}"), &[], body).await
    }

    pub(crate) async fn post(&self, id: &str, body: impl AsRef<[u8]>) -> HttpResponse {
        self.call("POST", id, body.as_ref()).await
    }

    /// The value of a metric, all its labels together.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        let page = http(self.internal(), "GET", "/metrics", &[], b"").await;
        let lines =
            page.text().lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    }

    /// Waits until no `$disconnect` is on its way.
    pub(crate) async fn settled(&self) {
        eventually(LIMIT, "every $disconnect is settled", async || {
            self.metric("tidegate_disconnect_events_pending").await == 0
        })
        .await;
    }

    /// Another client is still served.
    pub(crate) async fn expect_alive(&self, backend: &TestBackend) {
        let (mut client, id) = self.client(backend).await;
        assert_eq!(self.post(&id, "alive").await.status, 200);
        assert_eq!(client.next_text().await, "alive");
        client.close(Some((1000, ""))).await;
    }

    pub(crate) fn reload(&mut self, settings: &Settings) {
        self.gateway.reload(settings.config()).expect("a good configuration");
    }

    /// Goes down, after every connection has ended and its backend knows it.
    pub(crate) async fn drain(self) {
        within("a drain", self.gateway.drain(CancellationToken::new())).await;
    }
}
