use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One line for each connect, message, disconnect and call of `@connections` of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout`, `stderr`, or the path of a file. On SIGHUP the file is opened anew.
    #[schemars(length(min = 1, max = 4096))]
    pub destination: String,

    /// One line of text with `$context` variables. One that begins with `{` has its values escaped as in JSON, one that
    /// begins with `<` as in XML.
    #[schemars(length(min = 1, max = 3072))]
    pub format: String,
}
