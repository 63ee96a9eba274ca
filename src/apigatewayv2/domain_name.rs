use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A host name of one's own and what it leads to. Its key in `domainNames` is the name, such as `chat.example.com` or
/// `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainName {
    /// Which base path leads to which stage.
    pub api_mappings: Vec<ApiMapping>,
}

/// A base path of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiMapping {
    /// The path without its first slash, such as `beta` or `v1/chat`; empty for the domain itself.
    #[serde(default)]
    #[schemars(length(max = 300))]
    pub api_mapping_key: String,

    /// The API.
    pub api_id: String,

    /// Its stage. The stage's name is no part of the path then.
    pub stage: String,
}
