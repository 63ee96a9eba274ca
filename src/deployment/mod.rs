//! Resources compiled into the form that traffic sees: [`Deployments`], immutable and shared.
//!
//! Compiling finds every mistake at once ([`Problem`]); afterwards nothing is parsed or looked up by name twice.
//! Resolving tells which API and stage a request is for.

mod compile;
mod domain;
mod origin;
mod problem;
mod resolve;
mod resource;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;

use crate::expression::{Destination, RouteParameter, SelectionExpression, Source};
use crate::http_client::Backend;
use crate::limits::Throttle;
use crate::signing::Signer;
use crate::telemetry::{RepeatedWarning, RouteTelemetry, StageTelemetry};

use domain::Domains;

pub use origin::{AllowedOrigins, OriginError};
pub use problem::Problem;
pub use resolve::{Resolved, Target};
pub use resource::Resource;

/// Every API of this node, compiled.
#[derive(Debug, Default)]
pub struct Deployments {
    apis: HashMap<Arc<str>, Arc<Deployment>>,
    domains: Domains,
}

/// One API, compiled.
#[derive(Debug)]
pub struct Deployment {
    pub api_id: Arc<str>,
    /// Overrides the Host that clients used, in events.
    pub domain_name: Option<Arc<str>>,
    pub allow_origins: AllowedOrigins,
    pub route_selection_expression: SelectionExpression,
    stages: HashMap<Arc<str>, Arc<Stage>>,
}

/// One stage of an API, with every route ready to call.
#[derive(Debug)]
pub struct Stage {
    pub name: Arc<str>,
    pub variables: BTreeMap<String, String>,
    pub connect: Option<Arc<Route>>,
    pub disconnect: Option<Arc<Route>>,
    pub default: Option<Arc<Route>>,
    custom: HashMap<Arc<str>, Arc<Route>>,
    /// What an operator wants to see of it.
    pub telemetry: StageTelemetry,
}

/// One route of a stage.
#[derive(Debug)]
pub struct Route {
    pub key: Arc<str>,
    pub integration: Arc<Integration>,
    /// The backend's answer goes back to the client.
    pub two_way: bool,
    /// What a client must send when it connects.
    pub required_parameters: Vec<RouteParameter>,
    pub throttle: Option<RouteThrottle>,
    /// What an operator wants to see of it.
    pub telemetry: RouteTelemetry,
}

/// The bucket that a route's traffic takes from.
#[derive(Clone, Debug)]
pub struct RouteThrottle {
    /// Whose bucket it is: `route` or `stage`.
    pub level: &'static str,
    pub throttle: Arc<Throttle>,
}

/// A backend call with the stage's variables filled in.
#[derive(Debug)]
pub struct Integration {
    pub id: Arc<str>,
    pub kind: IntegrationKind,
    pub backend: Arc<Backend>,
    pub path_and_query: PathAndQuery,
    /// One deadline for the whole call.
    pub timeout: Duration,
    /// Proves to the backend that the call is the gateway's.
    pub signer: Option<Signer>,
    /// The backend's answers have keys that AWS would not take.
    pub unknown_keys: RepeatedWarning,
}

/// What a backend receives.
#[derive(Debug)]
pub enum IntegrationKind {
    /// The proxy event as JSON.
    AwsProxy,
    /// The message's own bytes.
    HttpProxy { method: Method, parameters: Vec<(Destination, Source)> },
}

impl Deployments {
    /// The API with this id.
    pub fn api(&self, api_id: &str) -> Option<&Arc<Deployment>> {
        self.apis.get(api_id)
    }

    /// Every API.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.apis.values()
    }
}

impl Deployment {
    /// The stage with this name.
    pub fn stage(&self, name: &str) -> Option<&Arc<Stage>> {
        self.stages.get(name)
    }

    /// Every stage.
    pub fn stages(&self) -> impl Iterator<Item = &Arc<Stage>> {
        self.stages.values()
    }
}

impl Stage {
    /// The route of a message: the one with the selected key, else `$default`. Keys that begin with `$` are reserved:
    /// a message body reaches none of them but `$default`.
    pub fn route(&self, selected: Option<&str>) -> Option<&Arc<Route>> {
        selected.and_then(|key| self.custom.get(key)).or(self.default.as_ref())
    }

    /// Whether a crowd of calls waits for the backend of one of its routes.
    pub fn is_crowded(&self) -> bool {
        self.routes().any(|route| route.integration.backend.is_crowded())
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        [&self.connect, &self.disconnect, &self.default].into_iter().flatten().chain(self.custom.values())
    }
}
