use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Access log of a stage: one line for each connect, message, disconnect and call of `@connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout`, `stderr`, or the path of a file. On SIGHUP the file is opened anew.
    #[schemars(length(min = 1, max = 4096))]
    pub destination: String,

    /// Format of a line: text with `$context` variables. In a format that begins with `{` values are escaped as in
    /// JSON, in one that begins with `<` as in XML.
    #[schemars(length(min = 1, max = 3072))]
    pub format: String,
}
