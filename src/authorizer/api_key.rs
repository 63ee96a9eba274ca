use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::settings::ApiKey;
use crate::integration::Handshake;
use crate::principal::ApiKeyIdentity;
use crate::problem::Problem;

const X_API_KEY: http::HeaderName = http::HeaderName::from_static("x-api-key");

/// The place of a client's API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiKeySource {
    /// `$request.header.x-api-key`
    Header,
    /// `$context.authorizer.usageIdentifierKey`
    Authorizer,
}

impl ApiKeySource {
    pub(super) fn parse(expression: &str) -> Option<Self> {
        match expression {
            "$request.header.x-api-key" => Some(ApiKeySource::Header),
            "$context.authorizer.usageIdentifierKey" => Some(ApiKeySource::Authorizer),
            _ => None,
        }
    }

    /// Returns the key that a client sent. Returns `None` if the header is repeated, under any spelling of its name
    /// that some backend reads as the same header.
    pub(super) fn value<'a>(self, handshake: &'a Handshake, of_authorizer: Option<&'a str>) -> Option<&'a str> {
        match self {
            ApiKeySource::Authorizer => of_authorizer,
            ApiKeySource::Header => {
                let value = handshake.headers.get(X_API_KEY).filter(|_| !handshake.repeats_header(&X_API_KEY));
                value.and_then(|value| value.to_str().ok())
            }
        }
    }
}

/// The configured API keys.
#[derive(Debug, Default)]
pub(super) struct ApiKeys {
    /// Enabled keys by the hash of their value, so that the time of a lookup does not depend on the value.
    enabled: HashMap<[u8; 32], Arc<ApiKeyIdentity>>,
    by_id: HashMap<Box<str>, Arc<ApiKeyIdentity>>,
}

impl ApiKeys {
    pub(super) fn compile(settings: &BTreeMap<String, ApiKey>, problems: &mut Vec<Problem>) -> Self {
        let mut owners: HashMap<[u8; 32], &str> = HashMap::new();
        let (mut enabled, mut by_id) = (HashMap::new(), HashMap::with_capacity(settings.len()));
        for (id, key) in settings {
            let hash = hash(key.value.expose());
            if let Some(other) = owners.insert(hash, id) {
                let message = format!("`{other}` has the same value; each key must have its own");
                problems.push(Problem::at(["apiKeys", id, "value"], message));
            }
            let identity = Arc::new(ApiKeyIdentity { id: id.as_str().into(), value: key.value.clone() });
            if key.enabled {
                enabled.insert(hash, Arc::clone(&identity));
            }
            by_id.insert(id.as_str().into(), identity);
        }
        ApiKeys { enabled, by_id }
    }

    pub(super) fn find(&self, value: &str) -> Option<&Arc<ApiKeyIdentity>> {
        self.enabled.get(&hash(value))
    }

    /// Returns the key with the id `id`, enabled or not.
    pub(super) fn of_id(&self, id: &str) -> Option<&Arc<ApiKeyIdentity>> {
        self.by_id.get(id)
    }
}

fn hash(value: &str) -> [u8; 32] {
    Sha256::digest(value.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorizer::Access;
    use crate::principal::Principal;

    #[test]
    fn a_principal_from_a_record_gets_the_value_of_its_key_back() {
        let key = |value: &str, enabled| ApiKey { value: value.to_owned().into(), enabled };
        let settings = [("mobile", key("hunter2", true)), ("retired", key("hunter3", false))];
        let settings = settings.into_iter().map(|(id, key)| (id.to_owned(), key)).collect();
        let api_keys = ApiKeys::compile(&settings, &mut Vec::new());
        let access = Access { api_keys, ..Access::default() };
        let check = |id: &str, expected: Option<&str>| {
            let key = ApiKeyIdentity { id: id.into(), value: "a secret".to_owned().into() };
            let held = Principal { api_key: Some(Arc::new(key)), ..Principal::default() };
            let record = rmp_serde::to_vec(&held).expect("a record");
            assert!(!record.windows(8).any(|bytes| bytes == b"a secret"));
            let taken_over: Principal = rmp_serde::from_slice(&record).expect("a principal");
            let completed = access.complete(Arc::new(taken_over));
            assert_eq!(completed.identity_variable("apiKey"), expected, "{id}");
            assert_eq!(completed.identity_variable("apiKeyId"), Some(id));
        };
        check("mobile", Some("hunter2"));
        check("retired", Some("hunter3"));
        check("gone", None);
    }
}
