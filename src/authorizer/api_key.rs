use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::settings::ApiKey;
use crate::deployment::Problem;
use crate::integration::Handshake;
use crate::principal::ApiKeyIdentity;

const X_API_KEY: http::HeaderName = http::HeaderName::from_static("x-api-key");

/// Where a client's API key is.
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

    /// The key that a client came with; one of two is none.
    pub(super) fn value<'a>(self, handshake: &'a Handshake, of_authorizer: Option<&'a str>) -> Option<&'a str> {
        match self {
            ApiKeySource::Authorizer => of_authorizer,
            ApiKeySource::Header => {
                let mut values = handshake.headers.get_all(X_API_KEY).iter();
                values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
            }
        }
    }
}

/// The keys that are enabled, by the hash of their value: finding one takes as long whatever was sent.
#[derive(Debug, Default)]
pub(super) struct ApiKeys {
    keys: HashMap<[u8; 32], Arc<ApiKeyIdentity>>,
}

impl ApiKeys {
    pub(super) fn compile(settings: &BTreeMap<String, ApiKey>, problems: &mut Vec<Problem>) -> Self {
        let mut owners: HashMap<[u8; 32], &str> = HashMap::new();
        let mut keys = HashMap::new();
        for (id, key) in settings {
            let hash = hash(key.value.expose());
            if let Some(other) = owners.insert(hash, id) {
                let message = format!("`{other}` has the same value; each key must have its own");
                problems.push(Problem::at(["apiKeys", id, "value"], message));
            }
            if key.enabled {
                keys.insert(hash, Arc::new(ApiKeyIdentity { id: id.as_str().into(), value: key.value.clone() }));
            }
        }
        ApiKeys { keys }
    }

    pub(super) fn find(&self, value: &str) -> Option<&Arc<ApiKeyIdentity>> {
        self.keys.get(&hash(value))
    }
}

fn hash(value: &str) -> [u8; 32] {
    Sha256::digest(value.as_bytes()).into()
}
