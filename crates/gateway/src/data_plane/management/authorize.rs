use super::handle::CallHead;
use super::headers::deciding;
use super::{CallRecord, CallRight};
use crate::data_plane::ConnectionsApiError;
use crate::data_plane::context::log_refused;
use tidegate_access::iam::{Claim, Grant, IamError, PolicyPath, Received, SignatureError};

/// Authenticates and authorizes a signed call of `@connections` on `paths` as far as that is possible without its body.
/// Logs a refused call. The signature must cover the headers that change what the call does.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the call must be refused whatever its body is.
pub(super) fn claim_call<'a>(
    call: &'a CallRecord,
    paths: &'a [PolicyPath],
    head: CallHead<'a>,
) -> Result<Claim<'a>, ConnectionsApiError> {
    let CallHead { uri, headers } = head;
    let received = Received { method: &call.facts.method, uri, headers };
    let deciding = deciding(headers, call.operation);
    let claim = call.live.access.credentials.claim_call(received, call.on(paths), deciding);
    claim.map_err(|error| denied((&call.deployment.api_id, &call.stage.name), error))
}

/// Authenticates and authorizes a signed call whose body has arrived. Returns the right of its key. Logs a refused
/// call.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the signature is not valid, or if its key may not make the call.
pub(super) fn admit_call(claim: Claim<'_>, body: &[u8]) -> Result<Grant, ConnectionsApiError> {
    let (api_id, stage) = claim.stage();
    claim.admit(body).map_err(|error| denied((api_id, stage), error))
}

/// Checks that an admitted call may also act on each of `paths`. Logs a refused call.
///
/// # Errors
/// Returns [`ConnectionsApiError::Denied`] if the policy of its key does not allow it, or if the call was not admitted.
pub(super) fn permit(call: &CallRecord, paths: impl Iterator<Item = PolicyPath>) -> Result<(), ConnectionsApiError> {
    let permitted = match &call.right {
        CallRight::Unsigned => return Ok(()),
        CallRight::Unchecked => Err(IamError::Signature(SignatureError::Missing)),
        CallRight::Granted(grant) => {
            let paths: Vec<PolicyPath> = paths.collect();
            grant.permit(&call.on(&paths))
        }
    };
    permitted.map_err(|error| denied((&call.deployment.api_id, &call.stage.name), error))
}

fn denied((api_id, stage): (&str, &str), error: IamError) -> ConnectionsApiError {
    log_refused(&error, false, api_id, stage, "a call of @connections was refused");
    ConnectionsApiError::Denied(error)
}
