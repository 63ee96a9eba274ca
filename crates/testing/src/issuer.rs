use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::{Reply, TestBackend};

/// A key that signs tokens.
pub struct Key {
    kid: String,
    key: EncodingKey,
    jwk: Value,
}

impl Key {
    /// Makes one with this id.
    pub fn new(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let point = pair.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..65]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", "x": x, "y": y });
        Key { kid: kid.to_owned(), key: EncodingKey::from_ec_der(&pair.serialize_der()), jwk }
    }

    /// Signs a token with these claims, whose header has more members.
    pub fn sign_with(&self, claims: &Value, more: &Value) -> String {
        let mut header = json!({ "alg": "ES256", "kid": self.kid });
        for (name, value) in more.as_object().into_iter().flatten() {
            header[name] = value.clone();
        }
        let [header, claims] = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, Algorithm::ES256);
        format!("{message}.{}", signature.expect("a signature"))
    }

    /// Signs a token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(claims, &json!({}))
    }
}

/// An OpenID Connect issuer on loopback.
pub struct Issuer {
    pub server: TestBackend,
}

impl Issuer {
    /// Starts one that publishes these keys.
    pub async fn start(keys: &[&Key]) -> Self {
        let server = TestBackend::start().await;
        let issuer = Issuer { server };
        issuer.publish(keys);
        issuer
    }

    /// Returns its URL, which is its name.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Publishes these keys, and no others.
    pub fn publish(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk.clone()).collect();
        self.publish_text(json!({ "keys": keys }).to_string());
    }

    /// Publishes this text in place of keys.
    pub fn publish_text(&self, keys: String) {
        let url = self.url();
        self.server.answer_with(move |call| match call.uri.path() {
            "/.well-known/openid-configuration" => {
                Reply::json(&json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }))
            }
            "/keys" => Reply::http(200, keys.clone()),
            _ => Reply::http(404, ""),
        });
    }

    /// Returns the claims of a token of this issuer that is good for some seconds.
    pub fn claims(&self, seconds: i64) -> Value {
        let now = i64::try_from(now()).expect("before the year 9999");
        json!({ "iss": self.url(), "aud": "chat", "sub": "ann", "scope": "chat", "iat": now, "exp": now + seconds })
    }
}

fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "an issuer has a clock of its own")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
