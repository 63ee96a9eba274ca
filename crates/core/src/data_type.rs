//! The two kinds of data that WebSocket carries.

use serde::Deserialize;

/// The type of a client's data frame, as `dataType` and `x-tidegate-data-type` write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DataType {
    Text,
    Binary,
}
