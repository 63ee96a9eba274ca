use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An authorizer, which decides if a client may connect. The key in `authorizers` is the authorizerId.
///
/// Differs from AWS: `JWT` works for WebSocket APIs, answers of a `REQUEST` authorizer may be cached, and the expiry of
/// a token has consequences for its connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorizer {
    /// `REQUEST` calls an HTTP server, `JWT` checks a token against its issuer's keys.
    pub authorizer_type: AuthorizerType,

    /// `REQUEST`: URL of an HTTP server or a Lambda function, which gets the authorizer event by `POST`;
    /// `${stageVariables.name}` is replaced by the stage's variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub authorizer_uri: Option<String>,

    /// Values that a client must send: `route.request.header.NAME`, `route.request.querystring.NAME`, `context.NAME` or
    /// `stageVariables.NAME`. A client without one of them is refused with 401. `JWT` has exactly one, the place of the
    /// token.
    #[serde(default)]
    pub identity_source: Vec<String>,

    /// `REQUEST`: deadline for the whole call, in milliseconds.
    #[serde(default = "timeout_default")]
    #[schemars(range(min = 50, max = 29000))]
    pub authorizer_timeout_in_millis: u32,

    /// `REQUEST`: time for which an answer is reused for clients with the same identity sources, in seconds. 0 = never,
    /// as AWS.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub authorizer_result_ttl_in_seconds: u32,

    /// `JWT`: issuer and audience of the tokens that are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_configuration: Option<JwtConfiguration>,

    /// `JWT`: route key of messages that bring a fresh token; the gateway answers them itself. Off when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub refresh_route_key: Option<String>,

    /// `JWT`: action when the token of a connection expires.
    #[serde(default)]
    pub token_expiration: TokenExpiration,
}

/// Kinds of authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthorizerType {
    /// An HTTP server, or a Lambda function, answers with a policy.
    #[serde(rename = "REQUEST")]
    Request,
    /// The gateway verifies a signed token.
    #[serde(rename = "JWT")]
    Jwt,
}

/// Issuer and audience of the tokens that an authorizer accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtConfiguration {
    /// The `iss` of the tokens, which is also the URL at which OpenID Connect discovery begins: an `https` URL, or
    /// `http` on loopback.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,

    /// The token's `aud`, or its `client_id` if it has no `aud`, must be one of these.
    #[schemars(length(min = 1))]
    pub audience: Vec<String>,
}

/// Settings for a connection whose token expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenExpiration {
    /// Action when the token expires.
    pub action: TokenExpirationAction,

    /// `CLOSE`: code of the close frame; 1008, or 3000 to 4999.
    #[schemars(range(min = 1008, max = 4999))]
    pub close_code: u16,

    /// Time between the notice to the client and the expiry of the token, in seconds, so that the client can bring a
    /// fresh one. 0 = at the expiry for `NOTIFY`, no notice for `CLOSE`.
    #[schemars(range(max = 3600))]
    pub notice_seconds: u32,
}

/// Action when a token expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenExpirationAction {
    /// The connection is closed.
    Close,
    /// The client gets a notice, and stays connected.
    Notify,
    /// Nothing happens, as on AWS, where a token matters only when a client connects.
    Ignore,
}

impl Default for TokenExpiration {
    fn default() -> Self {
        TokenExpiration { action: TokenExpirationAction::Close, close_code: 4401, notice_seconds: 0 }
    }
}

fn timeout_default() -> u32 {
    10_000
}
