use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::domain::bare_host;
use super::{Deployment, Deployments, Resource, Stage};
use tidegate_telemetry::Reason;

/// The beginning of the paths that name their API themselves: `/_aws/execute-api/{apiId}/{stage}`.
const PATH_PREFIX: [&str; 2] = ["_aws", "execute-api"];

/// The label after the apiId in a Host that names its API: `{apiId}.execute-api.…`.
const HOST_LABEL: &str = "execute-api";

/// The end of an API's own name on this machine: `{apiId}.execute-api.localhost`.
const LOCAL_NAMES: &str = "execute-api.localhost";

/// The API, the stage and the target of a request.
#[derive(Debug)]
pub struct Resolved {
    pub deployment: Arc<Deployment>,
    pub stage: Arc<Stage>,
    pub target: Target,
}

/// The part of a path after the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/{stage}`: a client that wants to connect.
    Client,
    /// `/{stage}/@…`: a backend that acts on connections.
    Callback(Resource),
}

impl Deployments {
    /// Finds the API, the stage and the target of a request. These may determine the API, and the first match wins: a
    /// custom domain with the mapping of its base path; a Host whose first label is an apiId
    /// (`chat.execute-api.localhost`, any port); the path prefix `/_aws/execute-api/{apiId}`; the only API. A custom
    /// domain leads to an API only through its mappings and that prefix.
    ///
    /// The path is used as received: empty segments are skipped (SDKs double slashes), and each segment is decoded
    /// once.
    pub fn resolve(&self, host: Option<&str>, path: &str) -> Option<Resolved> {
        let segments = path.split('/').filter(|segment| !segment.is_empty()).map(decode);
        let segments: Vec<Cow<'_, str>> = segments.collect::<Option<_>>()?;
        if let Some(mapped) = host.and_then(|host| self.mapped(host, &segments)) {
            return Some(mapped);
        }
        let (prefixed, rest) = match segments.as_slice() {
            [aws, execute_api, api_id, rest @ ..] if [&**aws, &**execute_api] == PATH_PREFIX => (Some(api_id), rest),
            rest => (None, rest),
        };
        let named = host.and_then(|host| self.named_by(host));
        let deployment = match (named, prefixed) {
            (Some(named), Some(api_id)) if *named.api_id != **api_id => return None,
            (Some(named), _) => named,
            (None, Some(api_id)) => self.api(api_id)?,
            (None, None) if host.is_some_and(|host| self.domains.has(host)) => return None,
            (None, None) => self.only()?,
        };
        let (stage, target) = match rest {
            [] => return None,
            [stage] => (stage, Target::Client),
            [stage, resource @ ..] => (stage, Target::Callback(Resource::parse(resource)?)),
        };
        let stage = deployment.stage(stage)?;
        Some(Resolved { deployment: Arc::clone(deployment), stage: Arc::clone(stage), target })
    }

    /// Returns the reason why [`Deployments::resolve`] finds nothing, for people.
    pub fn unresolved(&self, host: Option<&str>, path: &str) -> Reason {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty()).map(decode);
        let (first, second) = (segments.next().flatten(), segments.next().flatten());
        let is_prefixed = [first.as_deref(), second.as_deref()] == PATH_PREFIX.map(Some);
        let prefixed = if is_prefixed { segments.next().flatten() } else { None };
        let named = host.and_then(|host| self.named_by(host));
        // A custom domain leads to an API only through its mappings and the prefix.
        let only = || self.only().filter(|_| !host.is_some_and(|host| self.domains.has(host)));
        let named = named.or_else(|| prefixed.as_deref().map_or_else(only, |api_id| self.api(api_id)));
        let stage = if is_prefixed { segments.next().flatten() } else { first };
        match (named, stage) {
            (None, _) => Reason::UnknownApi,
            (Some(deployment), stage) if stage.as_deref().is_none_or(|stage| deployment.stage(stage).is_none()) => {
                Reason::UnknownStage
            }
            (Some(_), _) => Reason::UnknownResource,
        }
    }

    /// Returns the path that leads to a stage on `host`: the base path of a custom domain, or the stage, after the
    /// prefix that names its API if the host alone does not.
    pub fn stage_path(&self, host: &str, api_id: &str, stage: &str) -> String {
        if let Some(base_path) = self.domains.base_path(host, api_id, stage) {
            return base_path;
        }
        let only = || self.only().filter(|_| !self.domains.has(host));
        match self.named_by(host).or_else(only) {
            Some(deployment) if *deployment.api_id == *api_id => format!("/{stage}"),
            _ => format!("/{}/{}/{api_id}/{stage}", PATH_PREFIX[0], PATH_PREFIX[1]),
        }
    }

    /// Returns true if `host` is a custom domain, with any port.
    pub fn has_domain(&self, host: &str) -> bool {
        self.domains.has(host)
    }

    /// Returns true if `host` is `{apiId}.execute-api.localhost` of a configured API, with any port.
    pub fn names_api(&self, host: &str) -> bool {
        let is_local = |(_, rest): (&str, &str)| rest.eq_ignore_ascii_case(LOCAL_NAMES);
        bare_host(host).split_once('.').is_some_and(is_local) && self.named_by(host).is_some()
    }

    fn mapped(&self, host: &str, segments: &[Cow<'_, str>]) -> Option<Resolved> {
        let (deployment, stage, rest) = self.domains.resolve(host, segments)?;
        let target = match rest {
            [] => Target::Client,
            resource => Target::Callback(Resource::parse(resource)?),
        };
        Some(Resolved { deployment: Arc::clone(deployment), stage: Arc::clone(stage), target })
    }

    fn named_by(&self, host: &str) -> Option<&Arc<Deployment>> {
        let (api_id, rest) = host.split_once('.')?;
        let label = rest.split(['.', ':']).next()?;
        if label.eq_ignore_ascii_case(HOST_LABEL) { self.api(api_id) } else { None }
    }

    fn only(&self) -> Option<&Arc<Deployment>> {
        if self.apis.len() == 1 { self.apis.values().next() } else { None }
    }
}

fn decode(segment: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(segment).decode_utf8().ok()
}
