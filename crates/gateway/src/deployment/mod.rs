//! API resources compiled into the form that traffic uses: [`Deployments`], immutable and shared.
//!
//! Compiling reports all mistakes together ([`tidegate_core::problem::Problem`]); afterwards nothing is parsed or looked up by
//! name twice. Resolving finds the API and the stage of a request.

mod compile;
mod domain;
mod origin;
mod resolve;
mod resource;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidegate_access::authorizer::StageAccess;
use tidegate_access::usage::StageUsage;
use tidegate_core::limits::{Throttle, ThrottleLevel};
use tidegate_core::route_key::RouteKey;
use tidegate_integration::Integration;
use tidegate_language::expression::{RouteParameter, SelectionExpression};
use tidegate_telemetry::{RouteTelemetry, StageTelemetry};

use domain::Domains;

pub use compile::{CompileContext, compile_api};
pub use origin::{AllowedOrigins, OriginError};
pub use resolve::{Resolved, Target};
pub use resource::{PathConnection, Resource};

/// All APIs of this node, compiled.
#[derive(Debug, Default)]
pub struct Deployments {
    apis: HashMap<Arc<str>, Arc<Deployment>>,
    domains: Domains,
}

/// A compiled API.
#[derive(Debug)]
pub struct Deployment {
    pub api_id: Arc<str>,
    /// Value of `domainName` in events, in place of the Host that clients used.
    pub domain_name: Option<Arc<str>>,
    pub allow_origins: AllowedOrigins,
    pub route_selection_expression: SelectionExpression,
    stages: HashMap<Arc<str>, Arc<Stage>>,
}

/// A stage of an API, with every route ready to call.
#[derive(Debug)]
pub struct Stage {
    pub name: Arc<str>,
    pub variables: BTreeMap<String, String>,
    pub connect: Option<Arc<Route>>,
    pub disconnect: Option<Arc<Route>>,
    pub default: Option<Arc<Route>>,
    custom: HashMap<Arc<str>, Arc<Route>>,
    /// Requirements for a client that connects; `None` if everybody may.
    pub access: Option<StageAccess>,
    /// Usage plans of the API keys on this stage.
    pub usage: Arc<StageUsage>,
    /// Logs and metrics of the stage.
    pub telemetry: StageTelemetry,
}

/// A route of a stage.
#[derive(Debug)]
pub struct Route {
    pub key: RouteKey,
    pub integration: Arc<Integration>,
    /// True if the backend's answer goes back to the client.
    pub two_way: bool,
    /// Headers and query parameters that a client must send when it connects.
    pub required_parameters: Vec<RouteParameter>,
    pub throttle: Option<RouteThrottle>,
    /// Logs and metrics of the route.
    pub telemetry: RouteTelemetry,
}

/// The bucket from which a route's traffic takes tokens.
#[derive(Clone, Debug)]
pub struct RouteThrottle {
    /// The route's own bucket, or that of the stage.
    pub level: ThrottleLevel,
    pub throttle: Arc<Throttle>,
}

impl Deployments {
    /// Returns the API with the id `api_id`.
    pub fn api(&self, api_id: &str) -> Option<&Arc<Deployment>> {
        self.apis.get(api_id)
    }

    /// Sets for every backend how long its connections are kept idle: the shortest time that one of its integrations
    /// sets.
    pub fn put_in_force(&self) {
        let stages = || self.iter().flat_map(|deployment| deployment.stages());
        let integrations = || stages().flat_map(|stage| stage.routes()).map(|route| &route.integration);
        integrations().for_each(|integration| integration.reset_connection_idle());
        integrations().for_each(|integration| integration.lower_connection_idle());
    }

    /// Returns every API.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.apis.values()
    }
}

impl Deployment {
    /// Returns the stage with the name `name`.
    pub fn stage(&self, name: &str) -> Option<&Arc<Stage>> {
        self.stages.get(name)
    }

    /// Returns every stage.
    pub fn stages(&self) -> impl Iterator<Item = &Arc<Stage>> {
        self.stages.values()
    }
}

impl Stage {
    /// Returns the route of a message: the one with the key `selected`, or else `$default`. Keys that begin with `$`
    /// are reserved: a message can reach none of them but `$default`.
    pub fn route(&self, selected: Option<&str>) -> Option<&Arc<Route>> {
        selected.and_then(|key| self.custom.get(key)).or(self.default.as_ref())
    }

    /// Returns true if the backend of a route is saturated.
    pub fn is_saturated(&self) -> bool {
        self.routes().any(|route| route.integration.is_saturated())
    }

    /// Returns every route.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        [&self.connect, &self.disconnect, &self.default].into_iter().flatten().chain(self.custom.values())
    }
}
