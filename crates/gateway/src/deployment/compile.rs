use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::HeaderValue;

use super::domain::Domains;
use super::{AllowedOrigins, Deployment, Deployments, Route, RouteThrottle, Stage};
use tidegate_access::authorizer::{Access, AccessDraft, Mechanisms};
use tidegate_core::limits::ThrottleLevel;
use tidegate_core::limits::quota::{ROUTES_MAX, STAGE_VARIABLES_MAX};
use tidegate_core::limits::{LimitSettings, Throttle};
use tidegate_core::problem::Problem;
use tidegate_core::route_key::{CONNECT, DEFAULT, RouteKey};
use tidegate_integration::{Integration, IntegrationDraft};
use tidegate_language::expression::{RouteParameter, SelectionExpression};
use tidegate_telemetry::{RouteTelemetry, StageTelemetry};

/// The only value of `routeResponseSelectionExpression`, which makes a route two-way.
const TWO_WAY: &str = DEFAULT;

const STAGE_NAME_MAX_CHARS: usize = 128;
const VARIABLE_NAME_MAX_CHARS: usize = 64;
const VARIABLE_VALUE_MAX_CHARS: usize = 512;
const ROUTE_KEY_MAX_BYTES: usize = 1024;

/// The parts that APIs are compiled with. Connection pools and the keys of issuers belong to `mechanisms`, so they outlive
/// a reload.
#[derive(Clone, Copy, Debug)]
pub struct CompileContext<'a> {
    pub limits: &'a LimitSettings,
    pub access: &'a Access,
    pub mechanisms: &'a Mechanisms,
}

impl Deployments {
    /// Compiles every API.
    ///
    /// # Errors
    /// Returns all problems, not only the first.
    pub fn compile(
        apis: &BTreeMap<String, tidegate_resources::Api>,
        domain_names: &BTreeMap<String, tidegate_resources::DomainName>,
        context: CompileContext<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let (mut compiled, mut problems) = (HashMap::new(), Vec::new());
        for (api_id, api) in apis {
            match compile_api(api_id, api, context) {
                Ok(deployment) => _ = compiled.insert(Arc::from(api_id.as_str()), Arc::new(deployment)),
                Err(found) => problems.extend(found),
            }
        }
        let domains = Domains::compile(domain_names, apis, &compiled, &mut problems);
        if problems.is_empty() { Ok(Deployments { apis: compiled, domains }) } else { Err(problems) }
    }
}

/// Compiles one API.
///
/// # Errors
/// Returns every mistake in the API, not only the first.
pub fn compile_api(
    api_id: &str,
    api: &tidegate_resources::Api,
    context: CompileContext<'_>,
) -> Result<Deployment, Vec<Problem>> {
    let mut compiler = Compiler { context, problems: Vec::new() };
    match compiler.api(api_id, api) {
        Some(deployment) if compiler.problems.is_empty() => Ok(deployment),
        Some(_) | None => Err(compiler.problems),
    }
}

struct Compiler<'a> {
    context: CompileContext<'a>,
    problems: Vec<Problem>,
}

/// A route before a stage gives it a URI and a throttle.
struct RouteDraft<'a> {
    key: RouteKey,
    integration_id: &'a str,
    two_way: bool,
    required_parameters: Vec<RouteParameter>,
}

impl Compiler<'_> {
    fn problem<const N: usize>(&mut self, path: [&str; N], message: impl Into<String>) {
        self.problems.push(Problem::at(path, message));
    }

    fn api(&mut self, api_id: &str, api: &tidegate_resources::Api) -> Option<Deployment> {
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
        let CompileContext { limits, mechanisms, .. } = self.context;
        let (http_client, timeout_max_millis) = (&mechanisms.http_client, limits.integration_timeout_millis);
        let integrations: HashMap<&str, IntegrationDraft<'_>> = api
            .integrations
            .iter()
            .filter_map(|(id, settings)| {
                let at = (api_id, id.as_str());
                let draft = IntegrationDraft::new(at, settings, http_client, timeout_max_millis, &mut self.problems)?;
                Some((id.as_str(), draft))
            })
            .collect();
        let routes: Vec<RouteDraft<'_>> =
            api.routes.iter().filter_map(|(key, route)| self.route_draft(api_id, api, key, route)).collect();
        let access = AccessDraft::new(api_id, api, mechanisms, &mut self.problems);
        let stages = api
            .stages
            .iter()
            .map(|(name, stage)| {
                let compiled = self.stage((api_id, api), (name, stage), &integrations, &routes, &access);
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

    fn route_draft<'a>(
        &mut self,
        api_id: &str,
        api: &'a tidegate_resources::Api,
        key: &'a str,
        route: &'a tidegate_resources::Route,
    ) -> Option<RouteDraft<'a>> {
        let at = |field| ["apis", api_id, "routes", key, field];
        if key.is_empty() || key.len() > ROUTE_KEY_MAX_BYTES {
            self.problem(["apis", api_id, "routes", key], "a route key must have 1 to 1024 bytes");
        }
        let route_key = RouteKey::parse(key);
        if route_key.is_none() {
            self.problem(
                ["apis", api_id, "routes", key],
                "a route key that begins with `$` must be one of `$connect`, `$disconnect`, `$default`",
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
            if key != CONNECT {
                self.problem(path, "only `$connect` may have request parameters");
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
        Some(RouteDraft { key: route_key?, integration_id, two_way, required_parameters })
    }

    fn stage(
        &mut self,
        (api_id, api): (&str, &tidegate_resources::Api),
        (name, stage): (&str, &tidegate_resources::Stage),
        integrations: &HashMap<&str, IntegrationDraft<'_>>,
        routes: &[RouteDraft<'_>],
        access: &AccessDraft<'_>,
    ) -> Stage {
        let CompileContext { access: keys, mechanisms, .. } = self.context;
        self.check_stage_name(api_id, name);
        self.check_variables(api_id, name, &stage.stage_variables);
        for key in stage.route_settings.keys().filter(|key| !api.routes.contains_key(*key)) {
            self.problem(["apis", api_id, "stages", name, "routeSettings", key], format!("there is no route `{key}`"));
        }
        let integrations: HashMap<&str, Arc<Integration>> = integrations
            .iter()
            .filter_map(|(id, draft)| {
                let compiled =
                    draft.compile(name, &stage.stage_variables, &mechanisms.http_client, &mut self.problems)?;
                Some((*id, Arc::new(compiled)))
            })
            .collect();
        let shared = stage.default_route_settings.and_then(throttle).map(Arc::new);
        let mut compiled = Stage {
            name: name.into(),
            variables: stage.stage_variables.clone(),
            connect: None,
            disconnect: None,
            default: None,
            custom: HashMap::new(),
            access: access.compile((name, stage), keys, mechanisms, &mut self.problems),
            usage: keys.usage_plans.stage(api_id, name),
            telemetry: self.telemetry(api_id, name, stage),
        };
        for draft in routes {
            let Some(integration) = integrations.get(draft.integration_id) else { continue };
            let route = Arc::new(draft.compile(stage, integration, shared.as_ref()));
            match &draft.key {
                RouteKey::Connect => compiled.connect = Some(route),
                RouteKey::Disconnect => compiled.disconnect = Some(route),
                RouteKey::Default => compiled.default = Some(route),
                RouteKey::Custom(key) => _ = compiled.custom.insert(Arc::clone(key), route),
            }
        }
        compiled
    }

    fn check_stage_name(&mut self, api_id: &str, name: &str) {
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > STAGE_NAME_MAX_CHARS || !name.chars().all(is_name_char) {
            self.problem(
                ["apis", api_id, "stages", name],
                "a stage name must have 1 to 128 of the characters A-Z a-z 0-9 _ -",
            );
        }
    }

    fn telemetry(&mut self, api_id: &str, name: &str, stage: &tidegate_resources::Stage) -> StageTelemetry {
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
                self.problem(path, "a variable's name must have 1 to 64 of the characters A-Z a-z 0-9 _");
            }
            let is_value_char = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#&=,".contains(c);
            if value.len() > VARIABLE_VALUE_MAX_CHARS || !value.chars().all(is_value_char) {
                self.problem(
                    path,
                    "a variable's value may have at most 512 of the characters A-Z a-z 0-9 - . _ ~ : / ? # & = ,",
                );
            }
        }
    }
}

impl RouteDraft<'_> {
    /// Compiles the route for `stage`. `shared` is the throttle of the stage's routes without settings of their own.
    fn compile(
        &self,
        stage: &tidegate_resources::Stage,
        integration: &Arc<Integration>,
        shared: Option<&Arc<Throttle>>,
    ) -> Route {
        let throttle = match stage.route_settings.get(self.key.as_str()) {
            Some(settings) if settings.has_throttle() => {
                throttle(*settings).map(|own| (ThrottleLevel::Route, Arc::new(own)))
            }
            Some(_) | None => shared.cloned().map(|shared| (ThrottleLevel::Stage, shared)),
        };
        Route {
            key: self.key.clone(),
            integration: Arc::clone(integration),
            two_way: self.two_way,
            required_parameters: self.required_parameters.clone(),
            throttle: throttle.map(|(level, throttle)| RouteThrottle { level, throttle }),
            telemetry: RouteTelemetry::new(stage, self.key.as_str()),
        }
    }
}

fn throttle(settings: tidegate_resources::RouteSettings) -> Option<Throttle> {
    Throttle::new(settings.throttling_rate_limit, settings.throttling_burst_limit)
}

/// Returns true if `text` is a host with an optional port, as in a Host header.
fn is_host(text: &str) -> bool {
    HeaderValue::from_str(text).is_ok()
        && text.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'))
}
