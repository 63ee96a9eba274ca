use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use tidegate_core::secret::Secret;

/// A backend call. The key in `integrations` is the integrationId.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Integration {
    /// Payload that the backend receives: with `AWS_PROXY` the Lambda proxy event as JSON, with `HTTP_PROXY` the
    /// message's own bytes.
    pub integration_type: IntegrationType,

    /// An `http` or `https` URL; `${stageVariables.name}` is replaced by the stage's variable. 1 to 2048 characters.
    #[schemars(length(min = 1, max = 2048))]
    pub integration_uri: String,

    /// The HTTP method of an `HTTP_PROXY` call, `POST` by default. `AWS_PROXY` is always `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_method: Option<String>,

    /// Deadline for the whole call, in milliseconds: waiting for a connection, connecting, sending, reading. At most
    /// `limits.integrationTimeoutMillis`.
    #[serde(default = "timeout_default")]
    #[schemars(range(min = 50))]
    pub timeout_in_millis: u32,

    /// `HTTP_PROXY`: headers and query parameters that the backend receives besides the message, as
    /// `integration.request.header.NAME` or `integration.request.querystring.NAME` to `context.NAME`,
    /// `stageVariables.NAME`, `route.request.querystring.NAME`, `route.request.header.NAME`, `route.request.body.PATH`
    /// or `'literal'`. A client's own header or query parameter with that name is never passed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_parameters: BTreeMap<String, String>,

    /// HTTP/2 to this backend: chosen by ALPN for `https`, with prior knowledge for `http`.
    #[serde(default)]
    pub http2: bool,

    /// Most connections that this node opens to the backend's address; further calls wait for a free one. Integrations
    /// with the same address share the connections, and the largest value applies.
    #[serde(default = "max_connections_default")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_connections: u32,

    /// Longest time that a connection to the backend's address is kept idle, in milliseconds; 0 = a new connection for
    /// each call. It must be less than the backend's own idle timeout: a message that is sent while the backend closes
    /// the connection is lost. Not set: a second less than the backend's `Keep-Alive` header says, or 4000 without that
    /// header. Integrations with the same address share the least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 3_600_000))]
    pub connection_idle_millis: Option<u32>,

    /// Signs every call, so that the backend can verify that the gateway sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,

    /// With `https`: the authorities that the gateway trusts, and the gateway's own certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,

    /// Purpose of the integration; at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// Signatures of calls: the headers of Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`) cover
/// the body, and `x-tidegate-signature` covers the other `x-tidegate-*` headers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signing {
    /// Secrets that the gateway and the backend share: 24 to 64 bytes in base64, with or without `whsec_` before it.
    /// Every secret signs each call, so that a backend may know the old or the new one during a change.
    #[schemars(length(min = 1, max = 4))]
    pub secrets: Vec<Secret>,
}

/// TLS of an integration. Files are PEM and are read when the configuration is loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsConfig {
    /// Authorities that must have issued the backend's certificate, in place of the public ones; a certificate that is
    /// in this file itself is trusted too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,

    /// The gateway's own certificate, then those that lead to its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,

    /// The private key of `clientCertificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,

    /// The name that the backend's certificate must have; by default the host in `integrationUri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name_to_verify: Option<String>,
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
