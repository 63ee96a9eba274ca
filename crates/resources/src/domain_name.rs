use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A custom domain name, which leads to stages of APIs. The key in `domainNames` is the name, such as
/// `chat.example.com` or `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainName {
    /// Mappings of base paths to stages.
    pub api_mappings: Vec<ApiMapping>,
}

/// A base path of a domain, with its stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiMapping {
    /// The path without its first slash, such as `beta` or `v1/chat`; empty for the domain itself.
    #[serde(default)]
    #[schemars(length(max = 300))]
    pub api_mapping_key: String,

    /// The apiId.
    pub api_id: String,

    /// The stageName. It is not part of the path.
    pub stage: String,
}
