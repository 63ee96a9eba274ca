use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Batch, OperationKind};
use crate::data_plane::ConnectionsApiError;
use tidegate_connections::groups::Except;
use tidegate_core::data_type::DataType;
use tidegate_core::id::ConnectionId;

/// Prefix of the gateway's own headers.
const X_TIDEGATE: &str = "x-tidegate-";
const X_TIDEGATE_DATA_TYPE: &str = "x-tidegate-data-type";
const X_TIDEGATE_EXCEPT: &str = "x-tidegate-except";

/// Returns the headers that change what a call does. In a signed call each of them must be signed too: a proxy that
/// passes the call on could otherwise add one.
pub(super) fn deciding(headers: &HeaderMap, operation: Option<OperationKind>) -> impl Iterator<Item = &HeaderName> {
    let is_own = |name: &HeaderName| name.as_str().starts_with(X_TIDEGATE);
    // SDKs do not sign this header, and it matters for no other operation.
    let asks_for_lines = operation == Some(OperationKind::Send) && Batch::asks_for_lines(headers.get(CONTENT_TYPE));
    headers.keys().filter(move |name| is_own(name) || (asks_for_lines && *name == CONTENT_TYPE))
}

/// Parses the type of the data that clients get: text by default.
///
/// # Errors
/// Returns `BadRequest` if it is neither `text` nor `binary`.
pub(super) fn data_type(headers: &HeaderMap) -> Result<DataType, ConnectionsApiError> {
    match headers.get(X_TIDEGATE_DATA_TYPE).map(HeaderValue::as_bytes) {
        None | Some(b"text") => Ok(DataType::Text),
        Some(b"binary") => Ok(DataType::Binary),
        Some(_) => Err(ConnectionsApiError::BadRequest("x-tidegate-data-type must be `text` or `binary`")),
    }
}

/// Parses the ids of the connections that do not get a message, separated by commas.
///
/// # Errors
/// Returns `InvalidExcept` if one of them is not a connection id.
pub(super) fn except(headers: &HeaderMap) -> Result<Except, ConnectionsApiError> {
    let mut except = Except::default();
    for value in headers.get_all(X_TIDEGATE_EXCEPT) {
        let text = value.to_str().map_err(|_| ConnectionsApiError::InvalidExcept)?;
        for id in text.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            except.0.insert(ConnectionId::parse(id).map_err(|_| ConnectionsApiError::InvalidExcept)?);
        }
    }
    Ok(except)
}
