//! Signatures of calls to backends, as Standard Webhooks defines them. A backend that knows the secret can tell the
//! gateway's calls from forged and from replayed ones.
//!
//! `webhook-signature` covers the event's id, the time and the body, as the standard says. `x-tidegate-signature` is
//! tidegate's addition and covers the id, the time and every other `x-tidegate-*` header: these headers tell an
//! `HTTP_PROXY` backend which connection an event is about and what happened. Neither signature covers the path, the
//! query string or other headers.
//!
//! Source: Standard Webhooks, "Specification", version 1.0.0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use thiserror::Error;

use tidegate_core::clock::Timestamp;
use tidegate_core::received_base64;
use tidegate_core::secret::Secret;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TIDEGATE_SIGNATURE: HeaderName = HeaderName::from_static("x-tidegate-signature");

/// Prefix of the headers that describe an event.
const TIDEGATE_PREFIX: &str = "x-tidegate-";

/// Prefix of a secret in its usual form.
const PREFIX: &str = "whsec_";

const SECRET_MIN_BYTES: usize = 24;
const SECRET_MAX_BYTES: usize = 64;

/// A signer of calls, with one or more secrets.
#[derive(Clone)]
pub struct RequestSigner {
    /// Hash states with their keys, one for each secret, before any input.
    keys: Vec<Hmac<Sha256>>,
}

/// The error for a secret that cannot be used. The message does not contain the secret.
#[derive(Debug, Error)]
#[error(
    "secret {number} cannot be used; allowed: 24 to 64 bytes in base64, with or without the prefix `whsec_`, \
     such as the output of `openssl rand -base64 32`"
)]
pub struct SecretError {
    number: usize,
}

impl RequestSigner {
    /// Creates a signer with `secrets`.
    ///
    /// # Errors
    /// Returns [`SecretError`] for the first secret that is not base64 of 24 to 64 bytes.
    pub fn new(secrets: &[Secret]) -> Result<Self, SecretError> {
        let key = |(index, secret): (usize, &Secret)| {
            let text = secret.expose();
            let bytes = received_base64::decode(text.strip_prefix(PREFIX).unwrap_or(text)).ok();
            let bytes = bytes.filter(|bytes| (SECRET_MIN_BYTES..=SECRET_MAX_BYTES).contains(&bytes.len()));
            let key = bytes.and_then(|bytes| Hmac::<Sha256>::new_from_slice(&bytes).ok());
            key.ok_or(SecretError { number: index + 1 })
        };
        Ok(RequestSigner { keys: secrets.iter().enumerate().map(key).collect::<Result<_, _>>()? })
    }

    /// Sets the four signature headers in `headers`, in place of any that are there. All other `x-tidegate-*` headers
    /// of the call must be in `headers` already.
    pub fn sign(&self, headers: &mut HeaderMap, id: &str, now: Timestamp, body: &[u8]) {
        let seconds = (now.millis() / 1000).to_string();
        let prefix = format!("{id}.{seconds}.");
        let body_signatures = self.signatures(&[prefix.as_bytes(), body]);
        let own = headers.iter().filter(|(name, _)| name.as_str().starts_with(TIDEGATE_PREFIX));
        let mut own: Vec<(&str, &[u8])> = own
            .filter(|(name, _)| **name != TIDEGATE_SIGNATURE)
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        own.sort_unstable();
        let lines = own.iter().flat_map(|(name, value)| [name.as_bytes(), b":", value, b"\n"]);
        let signed: Vec<&[u8]> = [prefix.as_bytes()].into_iter().chain(lines).collect();
        let header_signatures = self.signatures(&signed);
        for (name, value) in [
            (WEBHOOK_ID, id),
            (WEBHOOK_TIMESTAMP, &seconds),
            (WEBHOOK_SIGNATURE, &body_signatures),
            (TIDEGATE_SIGNATURE, &header_signatures),
        ] {
            headers.insert(name, HeaderValue::from_str(value).expect("ids, numbers and base64 are visible ASCII"));
        }
    }

    /// Signs `parts`, joined together, with each key. Returns the signatures, separated by spaces.
    fn signatures(&self, parts: &[&[u8]]) -> String {
        let signatures = self.keys.iter().map(|key| {
            let mut mac = key.clone();
            parts.iter().for_each(|part| mac.update(part));
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl std::fmt::Debug for RequestSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestSigner").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the specification.
    #[test]
    fn a_call_is_signed_as_the_specification_says() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
        let signer = RequestSigner::new(&[secret.into(), "A".repeat(32).into()]).expect("secrets");
        let mut headers = HeaderMap::new();
        headers.insert(WEBHOOK_SIGNATURE, HeaderValue::from_static("v1,forged"));
        let now = Timestamp(1_614_265_330_999);
        signer.sign(&mut headers, "msg_p5jXN8AQM9LWM0D4loKWxJek", now, br#"{"test": 2432232314}"#);
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        let signatures = headers["webhook-signature"].to_str().expect("ASCII");
        let (first, second) = signatures.split_once(' ').expect("two");
        assert_eq!(first, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(second.starts_with("v1,"));
    }

    /// Compares with a signature that was computed with Python's `hmac`.
    #[test]
    fn the_gateways_own_headers_are_signed_in_the_order_of_their_names() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
        let signer = RequestSigner::new(&[secret.into()]).expect("a secret");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-tidegate-stage", "prod"),
            ("x-tidegate-signature", "v1,forged"),
            ("x-other", "1"),
            ("x-tidegate-connection-id", "L0SM9cOFvHcCIhw="),
            ("x-tidegate-route-key", ""),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        signer.sign(&mut headers, "msg_1", Timestamp(1_614_265_330_999), b"any body");
        assert_eq!(headers["x-tidegate-signature"], "v1,IlWf9OPFnY/kxg173tZCyaq0TUEamurYaeg8ob+m65A=");
    }

    #[test]
    fn a_secret_that_cannot_sign_is_named_and_not_shown() {
        let check = |text: &str| {
            let error = RequestSigner::new(&[text.to_owned().into()]).expect_err("no secret").to_string();
            assert!(error.starts_with("secret 1 cannot") && (text.is_empty() || !error.contains(text)), "{error}");
        };
        check("");
        check("hunter2hunter2hunter2");
        check("whsec_c2hvcnQ=");
        check(&STANDARD.encode([7; 65]));
    }
}
