use tidegate::config::{self, Config};

use crate::{TestBackend, TestGateway};

/// A configuration with one API `chat`, one integration `backend` and the stages `prod` and `test`, in the parts that
/// tests change. `$default` and `ask` are two-way, `tell` is one-way. `@connections` is open to everybody on both listeners
/// unless a test says who may call it. `${env:BACKEND}` in any part stands for the URL of the backend.
#[derive(Clone, Debug)]
pub struct Settings {
    backend: String,
    uri: String,
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
    /// Calls a backend by `AWS_PROXY`.
    pub fn aws_proxy(backend: &TestBackend) -> Self {
        Self::of(&backend.url(), "AWS_PROXY")
    }

    /// Calls a backend by `HTTP_PROXY`.
    pub fn http_proxy(backend: &TestBackend) -> Self {
        Self::of(&backend.url(), "HTTP_PROXY")
    }

    /// Calls the path `/events` of a backend at any URL.
    pub fn of(backend: &str, integration_type: &str) -> Self {
        let one_way =
            ["$connect", "$disconnect", "tell"].map(|key| format!("{key}: {{ target: integrations/backend }}"));
        let two_way = ["$default", "ask"].map(|key| {
            format!("{key}: {{ target: integrations/backend, routeResponseSelectionExpression: $default }}")
        });
        Settings {
            backend: backend.to_owned(),
            uri: format!("{backend}/events"),
            public: String::new(),
            internal: String::new(),
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

    /// Sets more of the public listener.
    pub fn public(mut self, settings: impl Into<String>) -> Self {
        self.public = settings.into();
        self
    }

    /// Sets more of the internal listener.
    pub fn internal(mut self, settings: impl Into<String>) -> Self {
        self.internal = settings.into();
        self
    }

    /// Calls this URI in place of the usual one.
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = uri.into();
        self
    }

    /// Adds a section of the file, such as `limits: { idleTimeoutSeconds: 1 }`.
    pub fn section(mut self, text: impl AsRef<str>) -> Self {
        self.top.push_str(text.as_ref());
        self.top.push('\n');
        self
    }

    /// Sets how long a call of the backend may take.
    pub fn timeout_millis(mut self, millis: u32) -> Self {
        self.timeout_millis = millis;
        self
    }

    /// Sets more of the integration.
    pub fn integration(mut self, settings: impl AsRef<str>) -> Self {
        self.integration.push_str(", ");
        self.integration.push_str(settings.as_ref());
        self
    }

    /// Sets all routes, in place of the usual ones.
    pub fn routes(mut self, routes: &str) -> Self {
        routes.clone_into(&mut self.routes);
        self
    }

    /// Adds a route.
    pub fn route(mut self, route: &str) -> Self {
        self.routes.push_str(", ");
        self.routes.push_str(route);
        self
    }

    /// Sets more of each stage.
    pub fn stage(mut self, settings: &str) -> Self {
        settings.clone_into(&mut self.stage);
        self
    }

    /// Sets the stages, in place of `prod` and `test`.
    pub fn stages(mut self, names: &[&'static str]) -> Self {
        self.stages = names.to_vec();
        self
    }

    /// Sets more of the API.
    pub fn api(mut self, setting: impl AsRef<str>) -> Self {
        self.api.push_str(setting.as_ref());
        self.api.push_str(", ");
        self
    }

    /// Adds an API with the same routes.
    pub fn another_api(mut self, api_id: &str) -> Self {
        let api = self.api_text();
        self.apis.push_str(&format!("  {api_id}: {api}\n"));
        self
    }

    fn api_text(&self) -> String {
        let Settings { uri, integration, timeout_millis, routes, stage, stages, api, .. } = self;
        let stages: Vec<String> = stages.iter().map(|name| format!("{name}: {{ {stage} }}")).collect();
        let stages = stages.join(", ");
        let expression = if api.contains("routeSelectionExpression") {
            ""
        } else {
            "routeSelectionExpression: $request.body.action, "
        };
        let uri = match integration {
            integration if integration.contains("integrationUri") => String::new(),
            _ => format!("integrationUri: \"{uri}\", "),
        };
        format!(
            "{{ {expression}{api}integrations: {{ backend: {{ {uri}timeoutInMillis: {timeout_millis}, {integration} }} }}, \
             routes: {{ {routes} }}, stages: {{ {stages} }} }}"
        )
    }

    /// Returns the text of the file.
    pub fn text(&self) -> String {
        let Settings { top, apis, .. } = self;
        let [public, internal] = [&self.public, &self.internal].map(|settings| match settings {
            settings if settings.contains("connectionsApi") => settings.clone(),
            settings => format!("connectionsApi: NONE, {settings}"),
        });
        let text = format!(
            "listeners:\n  public: {{ address: 127.0.0.1:0, {public} }}\n  internal: {{ address: 127.0.0.1:0, {internal} }}\n\
             {top}apis:\n  chat: {}\n{apis}",
            self.api_text()
        );
        text.replace("${env:BACKEND}", &self.backend)
    }

    /// Returns the configuration, which has to be right.
    pub fn config(&self) -> Config {
        load(&self.text())
    }

    /// Returns the problems of the configuration, each with its place.
    pub fn problems(&self) -> String {
        let problems = config::load(&self.text(), &|_| None).err().unwrap_or_default();
        problems.iter().map(|problem| format!("{}: {}\n", problem.path, problem.message)).collect()
    }

    /// Starts a gateway with it.
    pub async fn start(&self) -> TestGateway {
        TestGateway::start_with(self.config()).await
    }
}

/// Reads a configuration, which has to be right.
pub(crate) fn load(text: &str) -> Config {
    config::load(text, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
}
