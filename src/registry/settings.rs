use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the truth about connections is kept beside this node's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// `memory`: this node alone.
    #[serde(rename = "type")]
    pub registry_type: RegistryType,
}

/// Kinds of registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RegistryType {
    #[default]
    Memory,
}
