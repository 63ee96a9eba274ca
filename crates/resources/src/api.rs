use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Authorizer, Integration, Route, Stage};

/// A WebSocket API. The key in `apis` is the apiId.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Api {
    /// A name for people; 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub name: Option<String>,

    /// Purpose of the API; at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Expression that selects the route of a message, such as `$request.body.action`.
    pub route_selection_expression: String,

    /// Value of `requestContext.domainName`. By default the host, with its port, with which callback URLs begin without
    /// `callbackBaseUrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub domain_name: Option<String>,

    /// Source of a client's API key: `$request.header.x-api-key`, the default, or
    /// `$context.authorizer.usageIdentifierKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub api_key_selection_expression: Option<String>,

    /// Authorizers by authorizerId. An authorizer decides if a client may connect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub authorizers: BTreeMap<String, Authorizer>,
    /// Web pages that may open connections, by the `Origin` that their browser sends: `https://example.com` or
    /// `https://*.example.com`. By default every page may. Clients that send no `Origin` are always allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub allow_origins: Option<Vec<String>>,

    /// Backend calls by integrationId.
    #[serde(default)]
    pub integrations: BTreeMap<String, Integration>,

    /// Routes by route key: `$connect`, `$disconnect`, `$default`, or what the selection expression gives.
    #[serde(default)]
    pub routes: BTreeMap<String, Route>,

    /// Stages by name: the first segment of a client's URL.
    pub stages: BTreeMap<String, Stage>,
}
