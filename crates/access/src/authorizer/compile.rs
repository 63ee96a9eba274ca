use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::access::{Access, Mechanisms};
use super::api_key_source::ApiKeySource;
use super::authorize::Authorizer;
use super::iam_authorizer::IamAuthorizer;
use super::identity_source::IdentitySource;
use super::jwt_authorizer::JwtAuthorizer;
use super::request_authorizer::{AnswerCache, RequestAuthorizer};
use super::stage_access::StageAccess;
use crate::jwt::Issuer;
use tidegate_core::error_chain::chain;
use tidegate_core::problem::Problem;
use tidegate_core::route_key::CONNECT;
use tidegate_language::expression::UriTemplate;
use tidegate_resources::{Api, AuthorizationType, AuthorizerType, Route, Stage};

/// Most authorizers of one API.
///
/// Source: AWS, "Quotas for configuring and running a WebSocket API in API Gateway".
const AUTHORIZERS_MAX: usize = 10;

/// Most connections to one authorizer.
const MAX_CONNECTIONS: usize = 256;

/// The access settings of one API, checked, before a stage gives them its variables.
pub struct AccessDraft<'a> {
    api_id: &'a str,
    /// Route `$connect`, if the API has one.
    connect: Option<&'a Route>,
    authorizers: BTreeMap<&'a str, (&'a tidegate_resources::Authorizer, Draft)>,
    key_source: Option<ApiKeySource>,
}

impl<'a> AccessDraft<'a> {
    /// Checks the access settings of an API and adds every mistake in them to `problems`. Keys of issuers belong to
    /// `mechanisms`, so they outlive a reload.
    pub fn new(api_id: &'a str, api: &'a Api, mechanisms: &Mechanisms, problems: &mut Vec<Problem>) -> Self {
        let mut compiler = Compiler { mechanisms, problems };
        if api.authorizers.len() > AUTHORIZERS_MAX {
            let message = format!("{} authorizers; at most {AUTHORIZERS_MAX} are allowed", api.authorizers.len());
            compiler.problem(["apis", api_id, "authorizers"], message);
        }
        let draft = |(id, authorizer): (&'a String, &'a tidegate_resources::Authorizer)| {
            let place = AuthorizerName { api_id, authorizer_id: id };
            Some((id.as_str(), (authorizer, compiler.draft(place, api, authorizer)?)))
        };
        let authorizers = api.authorizers.iter().filter_map(draft).collect();
        let key_source = compiler.key_source(api_id, api);
        for (key, route) in &api.routes {
            compiler.check_route(api_id, api, key, route);
        }
        AccessDraft { api_id, connect: api.routes.get(CONNECT), authorizers, key_source }
    }

    /// Compiles the requirements of a stage. Returns `None` if it has none, and also after a mistake, which is added to
    /// `problems`.
    pub fn compile(
        &self,
        (stage_name, stage): (&str, &Stage),
        access: &Access,
        mechanisms: &Mechanisms,
        problems: &mut Vec<Problem>,
    ) -> Option<StageAccess> {
        let route = self.connect?;
        let api_key = self.key_source.filter(|_| route.api_key_required);
        let authorizer: Option<Arc<dyn Authorizer>> = match route.authorization_type {
            AuthorizationType::None => None,
            AuthorizationType::AwsIam => Some(Arc::new(IamAuthorizer {
                credentials: Arc::clone(&access.credentials),
                arns: Arc::clone(&access.arns),
            })),
            AuthorizationType::Custom | AuthorizationType::Jwt => {
                let mut compiler = Compiler { mechanisms, problems };
                Some(compiler.authorizer(self, (stage_name, stage), route)?)
            }
        };
        if authorizer.is_none() && api_key.is_none() {
            return None;
        }
        let method_arn = access.arns.connect(self.api_id, stage_name).into();
        Some(StageAccess { method_arn, authorizer, api_key })
    }
}

struct Compiler<'a> {
    mechanisms: &'a Mechanisms,
    problems: &'a mut Vec<Problem>,
}

/// The place of an authorizer in the configuration.
#[derive(Clone, Copy)]
struct AuthorizerName<'a> {
    api_id: &'a str,
    authorizer_id: &'a str,
}

/// A checked authorizer that is not bound to a route and a stage yet.
enum Draft {
    Request { template: UriTemplate, timeout: Duration, sources: Vec<IdentitySource>, ttl: Duration },
    Jwt { issuer: Arc<Issuer>, source: IdentitySource },
}

impl Compiler<'_> {
    fn problem<const N: usize>(&mut self, path: [&str; N], message: impl Into<String>) {
        self.problems.push(Problem::at(path, message));
    }

    fn key_source(&mut self, api_id: &str, api: &Api) -> Option<ApiKeySource> {
        let Some(expression) = &api.api_key_selection_expression else { return Some(ApiKeySource::Header) };
        let source = ApiKeySource::parse(expression);
        let is_custom = |route: &Route| route.authorization_type == AuthorizationType::Custom;
        match source {
            None => self.problem(
                ["apis", api_id, "apiKeySelectionExpression"],
                "allowed: `$request.header.x-api-key`, `$context.authorizer.usageIdentifierKey`",
            ),
            Some(ApiKeySource::Authorizer)
                if api.routes.get(CONNECT).is_some_and(|route| route.api_key_required && !is_custom(route)) =>
            {
                self.problem(
                    ["apis", api_id, "apiKeySelectionExpression"],
                    "only a `REQUEST` authorizer returns keys; `$connect` needs `authorizationType: CUSTOM`",
                );
            }
            Some(_) => {}
        }
        source
    }

    fn check_route(&mut self, api_id: &str, api: &Api, key: &str, route: &Route) {
        let at = |field| ["apis", api_id, "routes", key, field];
        if key != CONNECT {
            if route.authorization_type != AuthorizationType::None {
                self.problem(at("authorizationType"), "authorization is restricted to the $connect route only");
            }
            if route.api_key_required {
                self.problem(at("apiKeyRequired"), "API keys are restricted to the $connect route only");
            }
        }
        let wanted = match route.authorization_type {
            AuthorizationType::None | AuthorizationType::AwsIam => None,
            AuthorizationType::Custom => Some(AuthorizerType::Request),
            AuthorizationType::Jwt => Some(AuthorizerType::Jwt),
        };
        let found = route.authorizer_id.as_ref().map(|id| (id, api.authorizers.get(id)));
        match (wanted, found) {
            (None, Some(_)) => self.problem(at("authorizerId"), "only `CUSTOM` and `JWT` have an authorizer"),
            (Some(_), None) => {
                self.problem(["apis", api_id, "routes", key], "`authorizerId` is missing; `CUSTOM` and `JWT` need it");
            }
            (Some(_), Some((id, None))) => {
                let known: Vec<&str> = api.authorizers.keys().map(String::as_str).collect();
                let message = format!("there is no authorizer `{id}`; this API has: {}", known.join(", "));
                self.problem(at("authorizerId"), message);
            }
            (Some(wanted), Some((id, Some(authorizer)))) if authorizer.authorizer_type != wanted => {
                let message = format!("`{id}` has another type; `CUSTOM` needs a `REQUEST`, `JWT` a `JWT` authorizer");
                self.problem(at("authorizerId"), message);
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        if !route.authorization_scopes.is_empty() && wanted != Some(AuthorizerType::Jwt) {
            self.problem(at("authorizationScopes"), "only tokens have scopes; allowed with `authorizationType: JWT`");
        }
    }

    fn draft(
        &mut self,
        place: AuthorizerName<'_>,
        api: &Api,
        authorizer: &tidegate_resources::Authorizer,
    ) -> Option<Draft> {
        let before = self.problems.len();
        let sources = self.identity_sources(place, authorizer);
        let draft = match authorizer.authorizer_type {
            AuthorizerType::Request => self.request_draft(place, authorizer, sources),
            AuthorizerType::Jwt => self.jwt_draft(place, api, authorizer, sources),
        };
        draft.filter(|_| self.problems.len() == before)
    }

    fn at(&mut self, place: AuthorizerName<'_>, field: &str, message: impl Into<String>) {
        self.problem(["apis", place.api_id, "authorizers", place.authorizer_id, field], message);
    }

    /// Parses the identity sources. A single empty text stands for no source, as on AWS.
    fn identity_sources(
        &mut self,
        place: AuthorizerName<'_>,
        authorizer: &tidegate_resources::Authorizer,
    ) -> Vec<IdentitySource> {
        let texts = match authorizer.identity_source.as_slice() {
            [empty] if empty.is_empty() => &[],
            texts => texts,
        };
        let mut sources = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match IdentitySource::parse(text) {
                Ok(source) => sources.push(source),
                Err(error) => {
                    let path = ["apis", place.api_id, "authorizers", place.authorizer_id, "identitySource"];
                    let mut problem = Problem::at(path, error.to_string());
                    problem.path.push(index.to_string());
                    self.problems.push(problem);
                }
            }
        }
        sources
    }

    fn request_draft(
        &mut self,
        place: AuthorizerName<'_>,
        authorizer: &tidegate_resources::Authorizer,
        sources: Vec<IdentitySource>,
    ) -> Option<Draft> {
        if authorizer.jwt_configuration.is_some() {
            self.at(place, "jwtConfiguration", "not allowed for a `REQUEST` authorizer");
        }
        if authorizer.refresh_route_key.is_some() {
            self.at(place, "refreshRouteKey", "only the tokens of a `JWT` authorizer can be refreshed");
        }
        if authorizer.authorizer_result_ttl_in_seconds > 0 && sources.is_empty() {
            self.at(
                place,
                "authorizerResultTtlInSeconds",
                "without an identity source the first answer would be reused for every client; allowed: 0",
            );
        }
        let Some(uri) = &authorizer.authorizer_uri else {
            self.problem(
                ["apis", place.api_id, "authorizers", place.authorizer_id],
                "`authorizerUri` is missing; a `REQUEST` authorizer needs it",
            );
            return None;
        };
        match UriTemplate::parse(uri) {
            Ok(template) => Some(Draft::Request {
                template,
                timeout: Duration::from_millis(authorizer.authorizer_timeout_in_millis.into()),
                sources,
                ttl: Duration::from_secs(authorizer.authorizer_result_ttl_in_seconds.into()),
            }),
            Err(error) => {
                self.at(place, "authorizerUri", error.to_string());
                None
            }
        }
    }

    fn jwt_draft(
        &mut self,
        place: AuthorizerName<'_>,
        api: &Api,
        authorizer: &tidegate_resources::Authorizer,
        sources: Vec<IdentitySource>,
    ) -> Option<Draft> {
        if authorizer.authorizer_uri.is_some() {
            self.at(place, "authorizerUri", "a `JWT` authorizer makes no calls; its issuer is in `jwtConfiguration`");
        }
        if authorizer.authorizer_result_ttl_in_seconds > 0 {
            self.at(place, "authorizerResultTtlInSeconds", "a `JWT` authorizer has no answers to cache; allowed: 0");
        }
        if let Some(key) = &authorizer.refresh_route_key
            && (key.starts_with('$') || api.routes.contains_key(key))
        {
            self.at(place, "refreshRouteKey", "allowed: a key that no route has and that does not begin with `$`");
        }
        if !matches!(authorizer.token_expiration.close_code, 1008 | 3000..=4999) {
            let path = ["apis", place.api_id, "authorizers", place.authorizer_id, "tokenExpiration", "closeCode"];
            self.problem(path, "allowed: 1008, or 3000 to 4999");
        }
        let source = match <[IdentitySource; 1]>::try_from(sources) {
            Ok([source]) if source.is_of_request() => Some(source),
            _ => {
                self.at(
                    place,
                    "identitySource",
                    "a token is in one place; allowed: one of `route.request.header.NAME` and \
                     `route.request.querystring.NAME`",
                );
                None
            }
        };
        let Some(configuration) = &authorizer.jwt_configuration else {
            self.problem(
                ["apis", place.api_id, "authorizers", place.authorizer_id],
                "`jwtConfiguration` is missing; a `JWT` authorizer needs it",
            );
            return None;
        };
        if configuration.audience.is_empty() {
            let path = ["apis", place.api_id, "authorizers", place.authorizer_id, "jwtConfiguration", "audience"];
            self.problem(path, "the list is empty; without an audience every token of the issuer would be valid");
        }
        match self.mechanisms.issuers.issuer(&configuration.issuer) {
            Ok(issuer) => Some(Draft::Jwt { issuer, source: source? }),
            Err(error) => {
                let path = ["apis", place.api_id, "authorizers", place.authorizer_id, "jwtConfiguration", "issuer"];
                self.problem(path, chain(&error).to_string());
                None
            }
        }
    }

    /// Builds the REQUEST or JWT authorizer of a stage's `$connect` route. Returns `None` after a mistake.
    fn authorizer(
        &mut self,
        api: &AccessDraft<'_>,
        (stage_name, stage): (&str, &Stage),
        route: &Route,
    ) -> Option<Arc<dyn Authorizer>> {
        let (id, (settings, draft)) = api.authorizers.get_key_value(route.authorizer_id.as_deref()?)?;
        let compiled: Arc<dyn Authorizer> = match draft {
            Draft::Jwt { issuer, source } => Arc::new(JwtAuthorizer {
                issuer: Arc::clone(issuer),
                audience: settings.jwt_configuration.as_ref().map(|jwt| jwt.audience.clone()).unwrap_or_default(),
                identity_source: source.clone(),
                expiration: settings.token_expiration.clone(),
                refresh_route_key: settings.refresh_route_key.as_deref().map(Box::from),
                scopes: route.authorization_scopes.clone(),
            }),
            Draft::Request { template, timeout, sources, ttl } => {
                let place = AuthorizerName { api_id: api.api_id, authorizer_id: id };
                let uri = match template.resolve(&stage.stage_variables) {
                    Ok(text) => text,
                    Err(missing) => {
                        let message = format!("stage `{stage_name}` has no variable `{}`", missing.0);
                        self.at(place, "authorizerUri", message);
                        return None;
                    }
                };
                let parsed = uri.parse::<Uri>().ok();
                let client = &self.mechanisms.http_client;
                let backend = parsed.as_ref().map(|uri| client.backend(uri, false, MAX_CONNECTIONS));
                let path = parsed.as_ref().and_then(Uri::path_and_query).cloned();
                let (Some(Ok(backend)), Some(path_and_query)) = (backend, path) else {
                    let message =
                        format!("`{uri}` is not an `http://` or `https://` URL with a host (in stage `{stage_name}`)");
                    self.at(place, "authorizerUri", message);
                    return None;
                };
                Arc::new(RequestAuthorizer {
                    http_client: client.clone(),
                    backend,
                    path_and_query,
                    timeout: *timeout,
                    identity_sources: sources.clone(),
                    cache: (!ttl.is_zero()).then(|| AnswerCache::new(*ttl)),
                })
            }
        };
        Some(compiled)
    }
}
