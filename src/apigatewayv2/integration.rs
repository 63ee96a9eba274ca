use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A backend call. Its key in `integrations` is the integrationId.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Integration {
    /// What the backend receives: `AWS_PROXY` the Lambda proxy event as JSON, `HTTP_PROXY` the message's own bytes.
    pub integration_type: IntegrationType,

    /// An `http` or `https` URL; `${stageVariables.name}` is replaced by the stage's variable. 1 to 2048 characters.
    #[schemars(length(min = 1, max = 2048))]
    pub integration_uri: String,

    /// The HTTP method of an `HTTP_PROXY` call, `POST` by default. `AWS_PROXY` is always `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_method: Option<String>,

    /// One deadline for the whole call, in milliseconds: waiting for a connection, connecting, sending, reading. At most
    /// `limits.integrationTimeoutMillis`.
    #[serde(default = "timeout_default")]
    #[schemars(range(min = 50))]
    pub timeout_in_millis: u32,

    /// `HTTP_PROXY`: what the backend receives beside the message, as
    /// `integration.request.header.NAME` or `integration.request.querystring.NAME` to
    /// `context.NAME`, `stageVariables.NAME`, `route.request.querystring.NAME`, `route.request.header.NAME`,
    /// `route.request.body.PATH` or `'literal'`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_parameters: BTreeMap<String, String>,

    /// HTTP/2 to this backend: chosen by ALPN for `https`, with prior knowledge for `http`.
    #[serde(default)]
    pub http2: bool,

    /// Most connections that this node opens to the backend's address; calls beyond them wait for a free one.
    /// Integrations with the same address share them, by the largest figure.
    #[serde(default = "max_connections_default")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_connections: u32,

    /// What the integration is for; at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// Kinds of integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IntegrationType {
    AwsProxy,
    HttpProxy,
}

fn timeout_default() -> u32 {
    29_000
}

fn max_connections_default() -> u32 {
    256
}
