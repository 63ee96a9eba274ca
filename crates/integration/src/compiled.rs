use std::sync::Arc;
use std::time::Duration;

use super::aws_proxy::AwsProxy;
use super::http_proxy::HttpProxy;
use super::http_target::HttpTarget;
use tidegate_telemetry::RepeatedWarning;

/// An integration with the variables of one stage filled in, ready to call.
#[derive(Debug)]
pub struct Integration {
    pub id: Arc<str>,
    /// Time for a whole call.
    pub timeout: Duration,
    /// The warning about keys in the backend's answers that AWS would not accept.
    pub unknown_keys: RepeatedWarning,
    pub(super) kind: IntegrationKind,
}

/// The types of integration. A new type is a file with its compiled form and its call, a variant here, and an arm in
/// each `match`.
#[derive(Debug)]
pub(super) enum IntegrationKind {
    AwsProxy(AwsProxy),
    HttpProxy(HttpProxy),
}

impl Integration {
    /// Removes the idle timeout that an earlier configuration set for the backend's connections.
    pub fn reset_connection_idle(&self) {
        self.target().into_iter().for_each(HttpTarget::reset_connection_idle);
    }

    /// Lowers the idle timeout of the backend's connections to the one of this integration, if it has one.
    pub fn lower_connection_idle(&self) {
        self.target().into_iter().for_each(HttpTarget::lower_connection_idle);
    }

    /// Returns true if so many calls wait for the backend that another one may be refused.
    pub fn is_saturated(&self) -> bool {
        self.target().is_some_and(HttpTarget::is_saturated)
    }

    /// Returns the scheme, host and port of the backend, if the integration calls one.
    pub fn origin(&self) -> Option<String> {
        self.target().map(HttpTarget::origin)
    }

    /// Describes the type in words for `tidegate route`.
    pub fn type_description(&self) -> &'static str {
        match &self.kind {
            IntegrationKind::AwsProxy(_) => "AWS_PROXY: the event as JSON",
            IntegrationKind::HttpProxy(_) => "HTTP_PROXY: the message itself",
        }
    }

    /// Returns the method and URL of the call, such as `POST http://127.0.0.1:9000/ws`, if the integration calls a
    /// backend.
    pub fn request_line(&self) -> Option<String> {
        let method = match &self.kind {
            IntegrationKind::AwsProxy(_) => "POST",
            IntegrationKind::HttpProxy(proxy) => proxy.method.as_str(),
        };
        self.target().map(|target| format!("{method} {}", target.url()))
    }

    fn target(&self) -> Option<&HttpTarget> {
        match &self.kind {
            IntegrationKind::AwsProxy(proxy) => Some(&proxy.target),
            IntegrationKind::HttpProxy(proxy) => Some(&proxy.target),
        }
    }
}
