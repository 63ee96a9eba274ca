//! JSON Web Key Sets: the public keys of an issuer.
//!
//! Source: RFC 7517 (JWK), RFC 7518 (JWA), RFC 8037 (Ed25519).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use tidegate_core::json;

/// Most keys of one set that are used; further keys are ignored.
const KEYS_MAX: usize = 100;

/// Allowed sizes of an RSA modulus, in bytes: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A signature algorithm. All use key pairs of which the gateway knows the public half; `none` and HMAC are not
/// allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm(jsonwebtoken::Algorithm);

const ALGORITHMS: [(&str, jsonwebtoken::Algorithm); 9] = [
    ("RS256", jsonwebtoken::Algorithm::RS256),
    ("RS384", jsonwebtoken::Algorithm::RS384),
    ("RS512", jsonwebtoken::Algorithm::RS512),
    ("PS256", jsonwebtoken::Algorithm::PS256),
    ("PS384", jsonwebtoken::Algorithm::PS384),
    ("PS512", jsonwebtoken::Algorithm::PS512),
    ("ES256", jsonwebtoken::Algorithm::ES256),
    ("ES384", jsonwebtoken::Algorithm::ES384),
    ("EdDSA", jsonwebtoken::Algorithm::EdDSA),
];

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| Algorithm(*algorithm))
    }
}

/// A public key and the one algorithm that it may be used with.
#[derive(Clone)]
pub struct Key {
    pub(super) algorithm: Algorithm,
    kid: Option<String>,
    key: DecodingKey,
}

/// The usable keys of one issuer.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Parses a key set. Keys that cannot be used (for encryption, symmetric, too weak, of an unknown kind) are left
    /// out, and so are keys that share a `kid` and an algorithm. Returns `None` if the text is not a key set.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<Value>,
        }
        let Jwks { keys } = json::from_slice(text).ok()?;
        let keys: Vec<Key> = keys.into_iter().take(KEYS_MAX).filter_map(Key::parse).collect();
        let is_single = |key: &&Key| {
            keys.iter().filter(|other| other.kid == key.kid && other.algorithm == key.algorithm).count() == 1
        };
        Some(KeySet { keys: keys.iter().filter(is_single).cloned().collect() })
    }

    /// Returns the key with the id `kid`, preferably one for `algorithm`. Without `kid` it returns the only key of the
    /// set, or `None` if there are several.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let Some(kid) = kid else {
            return match self.keys.as_slice() {
                [only] => Some(only),
                _ => None,
            };
        };
        let mut of_id = self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid));
        let first = of_id.next();
        match first {
            Some(key) if key.algorithm != algorithm => of_id.find(|key| key.algorithm == algorithm).or(first),
            _ => first,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Key {
    fn parse(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let for_signatures = jwk.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
            && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        if !for_signatures {
            return None;
        }
        let (allowed, key): (&[&str], DecodingKey) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (modulus, exponent) = (jwk.n.as_deref()?, jwk.e.as_deref()?);
                let size = URL_SAFE_NO_PAD.decode(modulus).ok()?.iter().skip_while(|byte| **byte == 0).count();
                if !MODULUS_BYTES.contains(&size) {
                    return None;
                }
                let names = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
                (names, DecodingKey::from_rsa_components(modulus, exponent).ok()?)
            }
            ("EC", Some("P-256")) => {
                (&["ES256"], DecodingKey::from_ec_components(jwk.x.as_deref()?, jwk.y.as_deref()?).ok()?)
            }
            ("EC", Some("P-384")) => {
                (&["ES384"], DecodingKey::from_ec_components(jwk.x.as_deref()?, jwk.y.as_deref()?).ok()?)
            }
            ("OKP", Some("Ed25519")) => (&["EdDSA"], DecodingKey::from_ed_components(jwk.x.as_deref()?).ok()?),
            _ => return None,
        };
        // A key that does not name its algorithm has the usual one of its type: RS256 for RSA.
        let name = jwk.alg.as_deref().unwrap_or(allowed[0]);
        let algorithm = Algorithm::parse(name).filter(|_| allowed.contains(&name))?;
        Some(Key { algorithm, kid: jwk.kid, key })
    }

    /// Returns true if `signature`, in base64url, is the signature of `message` by this key.
    pub(super) fn verifies(&self, signature: &str, message: &[u8]) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.key, self.algorithm.0).unwrap_or(false)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
