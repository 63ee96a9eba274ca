use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Uri};

use super::domain::Domains;
use super::{
    AllowedOrigins, Deployment, Deployments, Integration, IntegrationKind, Problem, Route, RouteThrottle, Stage,
};
use crate::apigatewayv2::{self, IntegrationType};
use crate::expression::{Destination, RouteParameter, SelectionExpression, Source, UriTemplate};
use crate::http_client::{BackendOptions, HttpClient};
use crate::limits::quota::{ROUTES_MAX, STAGE_VARIABLES_MAX};
use crate::limits::{LimitSettings, Throttle};
use crate::signing::Signer;
use crate::telemetry::{RepeatedWarning, RouteTelemetry, StageTelemetry, chain};
use crate::tls::{CertificateFiles, ClientTls};

/// Routes that AWS reserves; no other key may begin with `$`.
const RESERVED_ROUTE_KEYS: [&str; 3] = ["$connect", "$disconnect", "$default"];

/// The one value that makes a route two-way.
const TWO_WAY: &str = "$default";

const STAGE_NAME_MAX_CHARS: usize = 128;
const VARIABLE_NAME_MAX_CHARS: usize = 64;
const VARIABLE_VALUE_MAX_CHARS: usize = 512;
const ROUTE_KEY_MAX_BYTES: usize = 1024;

impl Deployments {
    /// Compiles every API. Connection pools are `http_client`'s, so they outlive a reload.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    pub fn compile(
        apis: &BTreeMap<String, apigatewayv2::Api>,
        domain_names: &BTreeMap<String, apigatewayv2::DomainName>,
        limits: &LimitSettings,
        http_client: &HttpClient,
    ) -> Result<Self, Vec<Problem>> {
        let mut compiler = Compiler { limits, http_client, problems: Vec::new() };
        let compiled: HashMap<Arc<str>, Arc<Deployment>> = apis
            .iter()
            .filter_map(|(api_id, api)| Some((api_id.as_str().into(), Arc::new(compiler.api(api_id, api)?))))
            .collect();
        let domains = Domains::compile(domain_names, &compiled, &mut compiler.problems);
        let deployments = Deployments { apis: compiled, domains };
        if compiler.problems.is_empty() { Ok(deployments) } else { Err(compiler.problems) }
    }
}

struct Compiler<'a> {
    limits: &'a LimitSettings,
    http_client: &'a HttpClient,
    problems: Vec<Problem>,
}

/// A route before a stage gives it a URI and a throttle.
struct RouteDraft<'a> {
    key: &'a str,
    integration_id: &'a str,
    two_way: bool,
    required_parameters: Vec<RouteParameter>,
}

/// An integration before a stage fills in its variables.
struct IntegrationDraft<'a> {
    settings: &'a apigatewayv2::Integration,
    template: UriTemplate,
    method: Method,
    tls: Option<Arc<ClientTls>>,
    signer: Option<Signer>,
}

impl Compiler<'_> {
    fn problem<const N: usize>(&mut self, path: [&str; N], message: impl Into<String>) {
        self.problems.push(Problem::at(path, message));
    }

    fn api(&mut self, api_id: &str, api: &apigatewayv2::Api) -> Option<Deployment> {
        let expression = self.selection_expression(api_id, &api.route_selection_expression);
        if let Some(domain_name) = &api.domain_name
            && !is_host(domain_name)
        {
            self.problem(["apis", api_id, "domainName"], "not a host name with an optional port");
        }
        for (field, count) in [("routes", api.routes.len()), ("integrations", api.integrations.len())] {
            if count > ROUTES_MAX {
                self.problem(["apis", api_id, field], format!("{count} {field}; at most {ROUTES_MAX} are allowed"));
            }
        }
        let integrations: HashMap<&str, IntegrationDraft<'_>> = api
            .integrations
            .iter()
            .filter_map(|(id, settings)| Some((id.as_str(), self.integration_draft(api_id, id, settings)?)))
            .collect();
        let routes: Vec<RouteDraft<'_>> =
            api.routes.iter().filter_map(|(key, route)| self.route_draft(api_id, api, key, route)).collect();
        let stages = api
            .stages
            .iter()
            .map(|(name, stage)| {
                let compiled = self.stage(api_id, api, name, stage, &integrations, &routes);
                (Arc::from(name.as_str()), Arc::new(compiled))
            })
            .collect();
        Some(Deployment {
            api_id: api_id.into(),
            domain_name: api.domain_name.as_deref().map(Arc::from),
            allow_origins: self.allow_origins(api_id, api.allow_origins.as_deref()),
            route_selection_expression: expression?,
            stages,
        })
    }

    fn allow_origins(&mut self, api_id: &str, origins: Option<&[String]>) -> AllowedOrigins {
        AllowedOrigins::parse(origins).unwrap_or_else(|wrong| {
            for index in wrong {
                self.problem(
                    ["apis", api_id, "allowOrigins", &index.to_string()],
                    "not an origin; allowed: scheme, host and port as browsers write them, such as \
                     `https://example.com` or `https://*.example.com`",
                );
            }
            AllowedOrigins::default()
        })
    }

    fn selection_expression(&mut self, api_id: &str, text: &str) -> Option<SelectionExpression> {
        match SelectionExpression::parse(text) {
            Ok(expression) => Some(expression),
            Err(error) => {
                self.problem(["apis", api_id, "routeSelectionExpression"], error.to_string());
                None
            }
        }
    }

    fn integration_draft<'a>(
        &mut self,
        api_id: &str,
        id: &str,
        settings: &'a apigatewayv2::Integration,
    ) -> Option<IntegrationDraft<'a>> {
        let at = |field| ["apis", api_id, "integrations", id, field];
        let template = UriTemplate::parse(&settings.integration_uri)
            .map_err(|error| self.problem(at("integrationUri"), error.to_string()));
        let method = settings.integration_method.as_deref().unwrap_or("POST");
        let method = match method.parse::<Method>() {
            Ok(Method::CONNECT) | Err(_) => {
                self.problem(at("integrationMethod"), format!("`{method}` is no HTTP method such as `POST` or `PUT`"));
                None
            }
            Ok(method) if method != Method::POST && settings.integration_type == IntegrationType::AwsProxy => {
                self.problem(at("integrationMethod"), "an AWS_PROXY integration is always called with `POST`");
                None
            }
            Ok(method) => Some(method),
        };
        let longest = self.limits.integration_timeout_millis;
        if settings.timeout_in_millis > longest {
            self.problem(
                at("timeoutInMillis"),
                format!(
                    "{} is more than `limits.integrationTimeoutMillis` allows; allowed: 50 to {longest}",
                    settings.timeout_in_millis
                ),
            );
        }
        if settings.integration_type == IntegrationType::AwsProxy && !settings.request_parameters.is_empty() {
            self.problem(
                at("requestParameters"),
                "an AWS_PROXY integration maps no parameters: its event holds them all; allowed for HTTP_PROXY",
            );
        }
        for (destination, source) in &settings.request_parameters {
            let path = ["apis", api_id, "integrations", id, "requestParameters", destination.as_str()];
            if let Err(error) = Destination::parse(destination) {
                self.problem(path, error.to_string());
            }
            if let Err(error) = Source::parse(source) {
                self.problem(path, error.to_string());
            }
        }
        let tls = self.tls(at("tlsConfig"), settings);
        let signer = self.signer(at("signing"), settings);
        Some(IntegrationDraft { settings, template: template.ok()?, method: method?, tls: tls?, signer: signer? })
    }

    /// `None` if there is a problem, else the TLS settings if there are any.
    fn tls(&mut self, at: [&str; 5], settings: &apigatewayv2::Integration) -> Option<Option<Arc<ClientTls>>> {
        let Some(tls) = &settings.tls_config else { return Some(None) };
        let identity = match (&tls.client_certificate, &tls.client_key) {
            (Some(certificate), Some(key)) => {
                Some(CertificateFiles { certificate: certificate.clone(), private_key: key.clone() })
            }
            (None, None) => None,
            _ => {
                self.problem(at, "`clientCertificate` and `clientKey` go together");
                return None;
            }
        };
        let server_name = tls.server_name_to_verify.as_deref();
        match self.http_client.tls(tls.ca_file.as_ref(), identity.as_ref(), server_name) {
            Ok(tls) => Some(Some(Arc::new(tls))),
            Err(error) => {
                self.problem(at, chain(&error).to_string());
                None
            }
        }
    }

    /// `None` if there is a problem, else the signer if there is one.
    fn signer(&mut self, at: [&str; 5], settings: &apigatewayv2::Integration) -> Option<Option<Signer>> {
        let Some(signing) = &settings.signing else { return Some(None) };
        match Signer::new(&signing.secrets) {
            Ok(signer) => Some(Some(signer)),
            Err(error) => {
                self.problem(at, error.to_string());
                None
            }
        }
    }

    fn route_draft<'a>(
        &mut self,
        api_id: &str,
        api: &'a apigatewayv2::Api,
        key: &'a str,
        route: &'a apigatewayv2::Route,
    ) -> Option<RouteDraft<'a>> {
        let at = |field| ["apis", api_id, "routes", key, field];
        if key.is_empty() || key.len() > ROUTE_KEY_MAX_BYTES {
            self.problem(["apis", api_id, "routes", key], "a route key has 1 to 1024 bytes");
        }
        if key.starts_with('$') && !RESERVED_ROUTE_KEYS.contains(&key) {
            self.problem(
                ["apis", api_id, "routes", key],
                "a route key that begins with `$` is one of `$connect`, `$disconnect`, `$default`",
            );
        }
        if let Some(expression) = &route.route_response_selection_expression
            && expression != TWO_WAY
        {
            self.problem(
                at("routeResponseSelectionExpression"),
                format!("`{expression}` is not allowed; only `{TWO_WAY}` is"),
            );
        }
        let mut required_parameters = Vec::new();
        for (name, constraints) in &route.request_parameters {
            let path = ["apis", api_id, "routes", key, "requestParameters", name.as_str()];
            if key != "$connect" {
                self.problem(path, "only `$connect` has request parameters");
            }
            match RouteParameter::parse(name) {
                Ok(parameter) if constraints.required => required_parameters.push(parameter),
                Ok(_) => {}
                Err(error) => self.problem(path, error.to_string()),
            }
        }
        let Some(integration_id) = route.target.strip_prefix("integrations/") else {
            self.problem(at("target"), format!("`{}` is not of the form `integrations/INTEGRATION_ID`", route.target));
            return None;
        };
        if !api.integrations.contains_key(integration_id) {
            let known: Vec<&str> = api.integrations.keys().map(String::as_str).collect();
            self.problem(
                at("target"),
                format!("there is no integration `{integration_id}`; this API has: {}", known.join(", ")),
            );
            return None;
        }
        let two_way = route.route_response_selection_expression.is_some();
        Some(RouteDraft { key, integration_id, two_way, required_parameters })
    }

    fn stage(
        &mut self,
        api_id: &str,
        api: &apigatewayv2::Api,
        name: &str,
        stage: &apigatewayv2::Stage,
        integrations: &HashMap<&str, IntegrationDraft<'_>>,
        routes: &[RouteDraft<'_>],
    ) -> Stage {
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > STAGE_NAME_MAX_CHARS || !name.chars().all(is_name_char) {
            self.problem(
                ["apis", api_id, "stages", name],
                "a stage name has 1 to 128 of the characters A-Z a-z 0-9 _ -",
            );
        }
        self.check_variables(api_id, name, &stage.stage_variables);
        for key in stage.route_settings.keys().filter(|key| !api.routes.contains_key(*key)) {
            self.problem(["apis", api_id, "stages", name, "routeSettings", key], format!("there is no route `{key}`"));
        }
        let integrations: HashMap<&str, Arc<Integration>> = integrations
            .iter()
            .filter_map(|(id, draft)| Some((*id, Arc::new(self.integration(api_id, name, stage, id, draft)?))))
            .collect();
        let shared = stage.default_route_settings.and_then(Throttle::new).map(Arc::new);
        let mut compiled = Stage {
            name: name.into(),
            variables: stage.stage_variables.clone(),
            connect: None,
            disconnect: None,
            default: None,
            custom: HashMap::new(),
            telemetry: self.telemetry(api_id, name, stage),
        };
        for draft in routes {
            let Some(integration) = integrations.get(draft.integration_id) else { continue };
            let throttle = match stage.route_settings.get(draft.key) {
                Some(settings) if settings.has_throttle() => {
                    Throttle::new(*settings).map(|own| ("route", Arc::new(own)))
                }
                Some(_) | None => shared.clone().map(|shared| ("stage", shared)),
            };
            let route = Arc::new(Route {
                key: draft.key.into(),
                integration: Arc::clone(integration),
                two_way: draft.two_way,
                required_parameters: draft.required_parameters.clone(),
                throttle: throttle.map(|(level, throttle)| RouteThrottle { level, throttle }),
                telemetry: RouteTelemetry::new(stage, draft.key),
            });
            match draft.key {
                "$connect" => compiled.connect = Some(route),
                "$disconnect" => compiled.disconnect = Some(route),
                "$default" => compiled.default = Some(route),
                key => {
                    compiled.custom.insert(key.into(), route);
                }
            }
        }
        compiled
    }

    fn telemetry(&mut self, api_id: &str, name: &str, stage: &apigatewayv2::Stage) -> StageTelemetry {
        StageTelemetry::compile(stage).unwrap_or_else(|error| {
            let path = ["apis", api_id, "stages", name, "accessLogSettings", "format"];
            self.problem(path, error.to_string());
            StageTelemetry::silent()
        })
    }

    fn check_variables(&mut self, api_id: &str, stage: &str, variables: &BTreeMap<String, String>) {
        let path = ["apis", api_id, "stages", stage, "stageVariables"];
        if variables.len() > STAGE_VARIABLES_MAX {
            self.problem(path, format!("{} variables; at most {STAGE_VARIABLES_MAX} are allowed", variables.len()));
        }
        for (name, value) in variables {
            let path = ["apis", api_id, "stages", stage, "stageVariables", name.as_str()];
            let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || name.len() > VARIABLE_NAME_MAX_CHARS || !name.chars().all(is_name_char) {
                self.problem(path, "a variable's name has 1 to 64 of the characters A-Z a-z 0-9 _");
            }
            let is_value_char = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#&=,".contains(c);
            if value.len() > VARIABLE_VALUE_MAX_CHARS || !value.chars().all(is_value_char) {
                self.problem(
                    path,
                    "a variable's value has at most 512 of the characters A-Z a-z 0-9 - . _ ~ : / ? # & = ,",
                );
            }
        }
    }

    fn integration(
        &mut self,
        api_id: &str,
        stage_name: &str,
        stage: &apigatewayv2::Stage,
        id: &str,
        draft: &IntegrationDraft<'_>,
    ) -> Option<Integration> {
        let path = ["apis", api_id, "integrations", id, "integrationUri"];
        let text = match draft.template.resolve(&stage.stage_variables) {
            Ok(text) => text,
            Err(missing) => {
                self.problem(path, format!("stage `{stage_name}` has no variable `{}`", missing.0));
                return None;
            }
        };
        let Some(uri) = backend_uri(&text) else {
            self.problem(
                path,
                format!("`{text}` is no `http://` or `https://` URL with a host (in stage `{stage_name}`)"),
            );
            return None;
        };
        let settings = draft.settings;
        let max_connections = usize::try_from(settings.max_connections).unwrap_or(usize::MAX);
        if let Err(error) = draft.template.check_host(&stage.stage_variables) {
            self.problem(path, format!("{error} (in stage `{stage_name}`)"));
            return None;
        }
        if draft.tls.is_some() && uri.scheme_str() != Some("https") {
            self.problem(path, format!("`tlsConfig` is for `https://` URLs alone (in stage `{stage_name}`)"));
            return None;
        }
        let options = BackendOptions { http2: settings.http2, max_connections, tls: draft.tls.clone() };
        let backend = match self.http_client.backend_with(&uri, options) {
            Ok(backend) => backend,
            Err(error) => {
                self.problem(path, error.to_string());
                return None;
            }
        };
        let kind = match settings.integration_type {
            IntegrationType::AwsProxy => IntegrationKind::AwsProxy,
            IntegrationType::HttpProxy => {
                let parsed = settings.request_parameters.iter();
                let parameters = parsed
                    .filter_map(|(to, from)| Some((Destination::parse(to).ok()?, Source::parse(from).ok()?)))
                    .collect();
                IntegrationKind::HttpProxy { method: draft.method.clone(), parameters }
            }
        };
        Some(Integration {
            id: id.into(),
            kind,
            backend,
            path_and_query: uri.path_and_query().cloned()?,
            timeout: Duration::from_millis(settings.timeout_in_millis.into()),
            signer: draft.signer.clone(),
            unknown_keys: RepeatedWarning::default(),
        })
    }
}

/// The URL of a backend: absolute, http or https, no user name.
fn backend_uri(text: &str) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok()?;
    let authority = uri.authority()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty();
    (is_http && plain && uri.path_and_query().is_some()).then_some(uri)
}

/// A host with an optional port, as a Host header holds it.
fn is_host(text: &str) -> bool {
    HeaderValue::from_str(text).is_ok()
        && text.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'))
}
