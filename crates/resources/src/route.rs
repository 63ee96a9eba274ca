use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A route, which sends messages of one route key to an integration. The key in `routes` is the route key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Integration of the route: `integrations/{integrationId}`.
    #[schemars(length(min = 1, max = 128))]
    pub target: String,

    /// `$default` makes the route two-way: the backend's answer goes back to the client that sent the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_response_selection_expression: Option<String>,

    /// `$connect` only: query parameters and headers that a client must or may send, as
    /// `route.request.querystring.NAME` or `route.request.header.NAME` to `{ required: true }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_parameters: BTreeMap<String, ParameterConstraints>,

    /// `$connect` only: the check that decides if a client may connect.
    #[serde(default)]
    pub authorization_type: AuthorizationType,

    /// The authorizerId, for `CUSTOM` and `JWT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub authorizer_id: Option<String>,

    /// `JWT`: the token must have one of these scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorization_scopes: Vec<String>,

    /// `$connect` only: a client must have an API key of a usage plan of its stage.
    #[serde(default)]
    pub api_key_required: bool,

    /// A name for people; 1 to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub operation_name: Option<String>,
}

/// Check that decides if a client may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthorizationType {
    /// No check: everybody may connect.
    #[default]
    #[serde(rename = "NONE")]
    None,
    /// The request must be signed with one of `credentials` whose policy allows it.
    #[serde(rename = "AWS_IAM")]
    AwsIam,
    /// A `REQUEST` authorizer.
    #[serde(rename = "CUSTOM")]
    Custom,
    /// A `JWT` authorizer.
    #[serde(rename = "JWT")]
    Jwt,
}

/// Requirement of a request parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParameterConstraints {
    /// If true, a client without the parameter is refused with 400.
    #[serde(default)]
    pub required: bool,
}
