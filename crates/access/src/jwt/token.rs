//! Parsing and verification of JSON Web Tokens. Pure code: the caller passes keys and time.
//!
//! The order matters: first the form, then the signature with the issuer's key, then issuer, audience and time. No
//! claim is used for anything else before all of these are right.
//!
//! Source: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8725 (best practices); AWS, "Control access to HTTP APIs with JWT
//! authorizers".

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};
use thiserror::Error;

use super::issuer::IssuerError;
use super::key_set::{Algorithm, Key};
use tidegate_core::clock::Timestamp;
use tidegate_core::json;

/// Longest token, in bytes.
pub(super) const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// Largest lead of an issuer's clock over the gateway's, for `nbf` and `iat`.
const LEEWAY_SECONDS: f64 = 30.0;

/// The last second of the year 9999. A later `exp` is a mistake or an attack.
const MOMENT_MAX: f64 = 253_402_300_799.0;

/// The reason why a token is not valid.
#[derive(Clone, Debug, Error)]
pub enum TokenError {
    #[error("the identity source contains no token")]
    Missing,
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the token's algorithm is not allowed")]
    Algorithm,
    #[error("the token's key is not among the issuer's keys")]
    UnknownKey,
    #[error("the token's algorithm is not the one of its key")]
    WrongAlgorithm,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the claim `{0}` is missing or malformed")]
    Claim(&'static str),
    #[error("the issuer's keys could not be fetched")]
    Issuers(#[source] Arc<IssuerError>),
}

impl TokenError {
    /// Returns true if the issuer, not the token, is at fault.
    pub fn is_issuer_fault(&self) -> bool {
        matches!(self, TokenError::Issuers(_))
    }
}

/// A well-formed token that has not been verified.
#[derive(Debug)]
pub struct Unverified<'t> {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    signing_input: &'t str,
    signature: &'t str,
    claims: &'t str,
}

/// The required issuer and audience of a token, and the present time.
#[derive(Debug)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub audience: &'a [String],
    pub now: Timestamp,
}

/// The claims of a verified token.
#[derive(Debug)]
pub struct Claims {
    claims: Map<String, Value>,
    pub expires_at: Timestamp,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    cty: Option<String>,
    typ: Option<String>,
    // Each of these changes the meaning of the rest, and none is supported.
    crit: Option<Value>,
    enc: Option<Value>,
    zip: Option<Value>,
    b64: Option<Value>,
}

impl<'t> Unverified<'t> {
    /// Parses a token. `jku`, `x5u`, `jwk` and `x5c` are ignored: keys come from the configured issuer alone.
    ///
    /// # Errors
    /// Returns [`TokenError::Malformed`] if it is not an access token in three parts, and [`TokenError::Algorithm`] if
    /// its algorithm is not allowed.
    pub fn read(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::Malformed("it is too long"));
        }
        let parts = || -> Option<[&'t str; 3]> {
            let mut parts = token.split('.');
            let found = [parts.next()?, parts.next()?, parts.next()?];
            parts.next().is_none().then_some(found)
        };
        let [header, claims, signature] = parts().ok_or(TokenError::Malformed("it does not have three parts"))?;
        if signature.is_empty() {
            return Err(TokenError::Malformed("it is not signed"));
        }
        let header: Header = serde_json::from_value(Value::Object(object(header)?))
            .map_err(|_| TokenError::Malformed("its header is not that of a signed token"))?;
        if [&header.crit, &header.enc, &header.zip, &header.b64].into_iter().any(Option::is_some) {
            return Err(TokenError::Malformed("its header requires an unsupported extension"));
        }
        if header.cty.is_some_and(|cty| cty.eq_ignore_ascii_case("jwt")) {
            return Err(TokenError::Malformed("it contains another token"));
        }
        if header.typ.is_some_and(|typ| !is_access_token(&typ)) {
            return Err(TokenError::Malformed("its typ is not that of an access token"));
        }
        let algorithm = Algorithm::parse(&header.alg).ok_or(TokenError::Algorithm)?;
        let signing_input = &token[..token.len() - signature.len() - 1];
        Ok(Unverified { algorithm, kid: header.kid, signing_input, signature, claims })
    }

    /// Checks the signature with `key`, and only then reads the claims and checks issuer, audience and times.
    ///
    /// # Errors
    /// Returns the [`TokenError`] of the first check that fails.
    pub fn verify(&self, key: &Key, expected: &Expected<'_>) -> Result<Claims, TokenError> {
        if key.algorithm != self.algorithm {
            return Err(TokenError::WrongAlgorithm);
        }
        // Base64 whose unused bits are not zero would be a second spelling of the same signature.
        if URL_SAFE_NO_PAD.decode(self.signature).is_err() {
            return Err(TokenError::Malformed("its signature is not base64url"));
        }
        if !key.verifies(self.signature, self.signing_input.as_bytes()) {
            return Err(TokenError::Signature);
        }
        let claims = object(self.claims)?;
        if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
            return Err(TokenError::Issuer);
        }
        check_audience(&claims, expected.audience)?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double")]
        let now = expected.now.millis() as f64 / 1000.0;
        let expires = moment(&claims, "exp")?.ok_or(TokenError::Claim("exp"))?;
        if expires <= now {
            return Err(TokenError::Expired);
        }
        for name in ["nbf", "iat"] {
            if moment(&claims, name)?.is_some_and(|moment| moment > now + LEEWAY_SECONDS) {
                return Err(TokenError::NotYet);
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within 0 and MOMENT_MAX")]
        let expires_at = Timestamp((expires * 1000.0) as u64);
        Ok(Claims { claims, expires_at })
    }
}

/// Returns true if `typ` is that of an access token: `JWT`, or `at+jwt` of RFC 9068. An issuer signs other tokens with
/// the same key, such as logout tokens and security events.
fn is_access_token(typ: &str) -> bool {
    // "application/" may be left out (RFC 7515, section 4.1.9), and media types are compared without regard to case.
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

/// Checks that `aud`, a text or a list of texts, names one of `wanted`. Without `aud` it checks `client_id`, as AWS
/// does.
fn check_audience(claims: &Map<String, Value>, wanted: &[String]) -> Result<(), TokenError> {
    let is_wanted = |value: &Value| value.as_str().is_some_and(|value| wanted.iter().any(|wanted| wanted == value));
    let found = match claims.get("aud") {
        Some(Value::Array(values)) if values.iter().all(Value::is_string) => values.iter().any(is_wanted),
        Some(value @ Value::String(_)) => is_wanted(value),
        Some(_) => return Err(TokenError::Claim("aud")),
        None => claims.get("client_id").is_some_and(is_wanted),
    };
    if found { Ok(()) } else { Err(TokenError::Audience) }
}

/// Returns a claim that is a time, in seconds since 1970.
fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=MOMENT_MAX).contains(seconds));
    seconds.map(Some).ok_or(TokenError::Claim(name))
}

impl Claims {
    /// Returns the scopes: from `scope`, separated by blanks, or from `scp`, which may be a list.
    pub fn scopes(&self) -> Vec<&str> {
        match self.claims.get("scope").or_else(|| self.claims.get("scp")) {
            Some(Value::String(scopes)) => scopes.split(' ').filter(|scope| !scope.is_empty()).collect(),
            Some(Value::Array(scopes)) => scopes.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    pub fn subject(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// Returns all claims as text, as AWS shows them: a list is `[a b]`, an object its JSON.
    pub fn as_text(&self) -> Box<[(Box<str>, Box<str>)]> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let items = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                format!("[{}]", items.collect::<Vec<_>>().join(" "))
            }
            other => other.to_string(),
        };
        self.claims.iter().map(|(name, value)| (name.as_str().into(), text(value).into())).collect()
    }
}

/// Decodes a part of a token: base64url of a JSON object without repeated names.
fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("a part of it is not base64url"))?;
    let Unambiguous(object) =
        json::from_slice(&bytes).map_err(|_| TokenError::Malformed("a part of it is not one JSON object"))?;
    Ok(object)
}

/// A JSON object without repeated names. Of two `aud`, another program might read the other one.
struct Unambiguous(Map<String, Value>);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Map<String, Value>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name is repeated"));
                    }
                }
                Ok(map)
            }
        }

        deserializer.deserialize_map(Members).map(Unambiguous)
    }
}

#[cfg(test)]
mod tests;
