use std::sync::Arc;

use http::HeaderName;

use super::credentials::AccessKey;
use super::sigv4::{Payload, Received, Signature, SignatureError};
use tidegate_core::clock::Timestamp;

/// A request that names a known key. Its signature is checked without the body if that is possible, otherwise with it.
#[derive(Debug)]
pub(super) struct SignedRequest<'a> {
    received: Received<'a>,
    now: Timestamp,
    key: Arc<AccessKey>,
    signature: Signature,
    payload: Payload,
    is_proved: bool,
}

impl<'a> SignedRequest<'a> {
    /// Finds the key that a request names by `find`, and checks the signature if a header stands for the body.
    ///
    /// # Errors
    /// Returns a [`SignatureError`] if the request is not signed, names an unknown key, or has a signature that cannot
    /// be valid with any body.
    pub(super) fn read(
        received: Received<'a>,
        now: Timestamp,
        find: impl FnOnce(&str) -> Option<Arc<AccessKey>>,
    ) -> Result<Self, SignatureError> {
        let signature = Signature::read(&received, now)?;
        // The answer distinguishes an unknown key from a wrong signature, so the time that it takes may do so too.
        let key = find(&signature.access_key_id).ok_or(SignatureError::UnknownKey)?;
        let payload = Payload::read(&signature, received.headers)?;
        let mut request = SignedRequest { received, now, key, signature, payload, is_proved: false };
        if request.payload != Payload::Body {
            request.check(&[])?;
            request.is_proved = true;
        }
        Ok(request)
    }

    /// Returns the key that the request names.
    pub(super) fn key(&self) -> &Arc<AccessKey> {
        &self.key
    }

    /// Returns true if the signature has been checked. The body may still differ from the one that was signed.
    pub(super) fn is_proved(&self) -> bool {
        self.is_proved
    }

    /// Checks that the signature covers a header.
    ///
    /// # Errors
    /// Returns [`SignatureError::Invalid`] if it does not: an intermediary could have added or changed the header.
    pub(super) fn check_signs(&self, name: &HeaderName) -> Result<(), SignatureError> {
        self.signature.check_signs(name)
    }

    /// Checks the body, and the signature if that has not been checked, and returns the key.
    ///
    /// # Errors
    /// Returns a [`SignatureError`] if the signature is not valid or is not for this body.
    pub(super) fn prove(self, body: &[u8]) -> Result<Arc<AccessKey>, SignatureError> {
        if !self.is_proved {
            self.check(body)?;
        }
        self.payload.check(body)?;
        Ok(self.key)
    }

    /// Checks the signature. `body` is used only if no header stands for it.
    fn check(&self, body: &[u8]) -> Result<(), SignatureError> {
        let SignedRequest { received, now, key, signature, payload, .. } = self;
        let is_right = signature.is_of(key.secret(), received, &payload.with(body))?;
        match (is_right, key.has_session_token(signature.session_token.as_deref())) {
            (false, _) => Err(SignatureError::Mismatch),
            (true, false) => Err(SignatureError::UnknownKey),
            (true, true) if key.is_expired(*now) => Err(SignatureError::Expired),
            (true, true) => Ok(()),
        }
    }
}
