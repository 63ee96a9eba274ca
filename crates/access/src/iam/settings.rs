use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use tidegate_core::secret::Secret;

/// A key that may sign requests to `@connections` and to `$connect` routes with `AWS_IAM`. The key in `credentials` is
/// the user name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credential {
    /// Public name of the key in a signature.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[\w-]+$"))]
    pub access_key_id: String,

    /// Secret that signs. It is never sent.
    #[schemars(with = "String", length(min = 1, max = 1024))]
    pub secret_access_key: Secret,

    /// Session token of temporary credentials. It must be sent with every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1, max = 4096))]
    pub session_token: Option<Secret>,

    /// Time when temporary credentials expire, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub expiration: Option<String>,

    /// An IAM policy. Without one the key may do everything on this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, Value>>")]
    pub policy_document: Option<Value>,
}
