//! Resources of a WebSocket API as AWS spells them in `apigatewayv2`.
//!
//! The types are read from the configuration file today and can be served by a compatible control plane later. They
//! hold the text of the configuration, not compiled; `deployment` turns them into the form that traffic uses.
//!
//! Differs from AWS: resources are maps keyed by their id (or route key, or stage name) instead of lists, and a
//! stage has no deployment of its own: loading the configuration deploys every stage.

mod access_log_settings;
mod api;
mod authorizer;
mod domain_name;
mod integration;
mod route;
mod stage;

pub use access_log_settings::AccessLogSettings;
pub use api::Api;
pub use authorizer::{Authorizer, AuthorizerType, JwtConfiguration, TokenExpiration, TokenExpirationAction};
pub use domain_name::{ApiMapping, DomainName};
pub use integration::{Integration, IntegrationType, Signing, TlsConfig};
pub use route::{AuthorizationType, ParameterConstraints, Route};
pub use stage::{LoggingLevel, RouteSettings, Stage};
