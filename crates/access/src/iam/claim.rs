use super::connections_call::ConnectionsCall;
use super::error::IamError;
use super::grant::Grant;
use super::signed_request::SignedRequest;

/// A signed call whose body has not been read. With the body it becomes a [`Grant`].
#[derive(Debug)]
pub struct Claim<'a> {
    request: SignedRequest<'a>,
    call: ConnectionsCall<'a>,
    grant: Grant,
    /// True if the signature is valid and the policy allows the call. The body may still differ from the signed one.
    is_permitted: bool,
}

impl<'a> Claim<'a> {
    /// Checks the policy if the signature has been checked. Otherwise [`Claim::admit`] checks both.
    pub(super) fn new(request: SignedRequest<'a>, call: ConnectionsCall<'a>, grant: Grant) -> Result<Self, IamError> {
        let is_permitted = request.is_proved();
        if is_permitted {
            grant.permit(&call)?;
        }
        Ok(Claim { request, call, grant, is_permitted })
    }

    /// Returns true if the signature is valid and the policy allows the call, so that only the hash of the body is
    /// still to be checked.
    pub fn is_permitted(&self) -> bool {
        self.is_permitted
    }

    /// Returns the API id and the stage of the call.
    pub fn stage(&self) -> (&'a str, &'a str) {
        (self.call.api_id, self.call.stage)
    }

    /// Checks what could not be checked without the body, and returns the right to make the call.
    ///
    /// # Errors
    /// Returns [`IamError::Signature`] if the signature is not valid or is not for this body, and
    /// [`IamError::AccessDenied`] if the policy of the key does not allow the call on one of its paths.
    pub fn admit(self, body: &[u8]) -> Result<Grant, IamError> {
        self.request.prove(body).map_err(IamError::Signature)?;
        if !self.is_permitted {
            self.grant.permit(&self.call)?;
        }
        Ok(self.grant)
    }
}
