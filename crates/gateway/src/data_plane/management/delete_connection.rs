use http::{Response, StatusCode};

use super::CallRecord;
use crate::data_plane::delivery::find::{Found, find};
use crate::data_plane::delivery::forward::forward;
use crate::data_plane::response::{Body, empty};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use tidegate_connections::cluster::link::Action;
use tidegate_connections::registry::OpenConnection;
use tidegate_connections::session::{Closing, REASON_MAX_BYTES};
use tidegate_core::id::ConnectionId;

const CODE_DEFAULT: u16 = 1000;
const REASON_DEFAULT: &str = "Connection Closed Normally";

/// The close code and the reason for a client whose connection a backend closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseRequest {
    pub(in crate::data_plane) code: u16,
    pub(in crate::data_plane) reason: String,
}

impl CloseRequest {
    /// Parses `code` and `reason` from the query string of a call. AWS has neither parameter: the defaults are AWS's
    /// code 1000 and its reason.
    ///
    /// # Errors
    /// Returns `BadRequest` if the code is neither 1000 nor 3000 to 4999, or if the reason has more than 123 bytes.
    pub fn parse(query: Option<&str>) -> Result<Self, ConnectionsApiError> {
        let mut request = CloseRequest { code: CODE_DEFAULT, reason: REASON_DEFAULT.to_owned() };
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "code" => {
                    let code = value.parse().ok().filter(|code| matches!(code, 1000 | 3000..=4999));
                    request.code = code.ok_or(ConnectionsApiError::BadRequest("code must be 1000 or 3000 to 4999"))?;
                }
                "reason" if value.len() > REASON_MAX_BYTES => {
                    return Err(ConnectionsApiError::BadRequest("reason must have at most 123 bytes"));
                }
                "reason" => request.reason = value.into_owned(),
                _ => {}
            }
        }
        Ok(request)
    }
}

/// Carries out `DELETE /{stage}/@connections/{connectionId}`: closes a connection. Frames that were posted before are
/// written first.
///
/// # Errors
/// Returns `Gone` if the connection is gone, `OwnerUnreachable` if its node cannot be reached, or `DeliveryUnknown` if
/// its node did not answer.
pub(super) async fn delete_connection(
    plane: &DataPlane,
    call: &CallRecord,
    id: ConnectionId,
    close: &CloseRequest,
) -> Result<Response<Body>, ConnectionsApiError> {
    match find(plane, call, id).await? {
        Found::Here(open) if close_open(&open, close.code, &close.reason) => {}
        Found::Here(_) => return Err(ConnectionsApiError::Gone),
        Found::Elsewhere(id) => {
            let action = Action::Delete { code: close.code, reason: close.reason.as_str().into() };
            forward(plane, call, id, action).await?;
        }
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Closes a connection of this node. Returns false if it is closing already.
pub(in crate::data_plane) fn close_open(open: &OpenConnection, code: u16, reason: &str) -> bool {
    open.outbox.close(Closing::deleted(code, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_checked() {
        let check = |query: &str, expected: Option<(u16, &str)>| {
            let parsed = CloseRequest::parse(Some(query)).ok();
            assert_eq!(parsed.as_ref().map(|request| (request.code, &*request.reason)), expected, "{query}");
        };
        check("", Some((1000, REASON_DEFAULT)));
        check("code=4001&reason=kicked", Some((4001, "kicked")));
        check("code=1000", Some((1000, REASON_DEFAULT)));
        check("code=3000&reason=", Some((3000, "")));
        check("code=4999&reason=a%20b", Some((4999, "a b")));
        check("code=5000", None);
        check("code=1001", None);
        check("code=2999", None);
        check("code=x", None);
        check("code=", None);
        check(&format!("reason={}", "a".repeat(123)), Some((1000, &"a".repeat(123))));
        check(&format!("reason={}", "a".repeat(124)), None);
        check(&format!("reason={}", "%C3%A4".repeat(62)), None);
        check("X-Amz-Signature=abc", Some((1000, REASON_DEFAULT)));
    }
}
