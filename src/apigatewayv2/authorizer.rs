use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who decides whether a client may connect. Its key in `authorizers` is the authorizerId.
///
/// Differs from AWS: `JWT` works for WebSocket APIs, a `REQUEST` authorizer's answers may be cached, and a token that
/// expires has consequences for its connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorizer {
    /// `REQUEST` asks an HTTP server, `JWT` checks a token against its issuer's keys.
    pub authorizer_type: AuthorizerType,

    /// `REQUEST`: the URL that gets the authorizer event by `POST`, an HTTP server's or a Lambda function's;
    /// `${stageVariables.name}` is replaced by the stage's variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub authorizer_uri: Option<String>,

    /// What a client must send: `route.request.header.NAME`, `route.request.querystring.NAME`, `context.NAME` or
    /// `stageVariables.NAME`. Without one of them it is refused with 401. `JWT` takes one, the place of the token.
    #[serde(default)]
    pub identity_source: Vec<String>,

    /// `REQUEST`: one deadline for the whole call, in milliseconds.
    #[serde(default = "timeout_default")]
    #[schemars(range(min = 50, max = 29000))]
    pub authorizer_timeout_in_millis: u32,

    /// `REQUEST`: how long an answer holds for others with the same identity sources. 0 = never, as AWS.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub authorizer_result_ttl_in_seconds: u32,

    /// `JWT`: whose tokens are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_configuration: Option<JwtConfiguration>,

    /// `JWT`: a message with this route key brings a fresh token; the gateway answers it itself. Off when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub refresh_route_key: Option<String>,

    /// `JWT`: what becomes of a connection whose token expires.
    #[serde(default)]
    pub token_expiration: TokenExpiration,
}

/// Kinds of authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthorizerType {
    /// An HTTP server, or a Lambda function, answers with a policy.
    #[serde(rename = "REQUEST")]
    Request,
    /// A signed token.
    #[serde(rename = "JWT")]
    Jwt,
}

/// Whose tokens an authorizer takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtConfiguration {
    /// The `iss` of the tokens, and where OpenID Connect discovery begins: an `https` URL, or `http` on loopback.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,

    /// The token's `aud`, or its `client_id` if it has no `aud`, must be one of these.
    #[schemars(length(min = 1))]
    pub audience: Vec<String>,
}

/// What becomes of a connection whose token expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenExpiration {
    /// What happens when the token expires.
    pub action: TokenExpirationAction,

    /// `CLOSE`: the code of the close frame; 1008, or 3000 to 4999.
    #[schemars(range(min = 1008, max = 4999))]
    pub close_code: u16,

    /// A notice is sent this long before the token expires, so that the client can bring a fresh one. 0 = at that
    /// very moment for `NOTIFY`, none for `CLOSE`.
    #[schemars(range(max = 3600))]
    pub notice_seconds: u32,
}

/// What happens when a token expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenExpirationAction {
    /// The connection is closed.
    Close,
    /// The client gets a notice, and stays.
    Notify,
    /// Nothing: as AWS, where a token counts only when a client connects.
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
