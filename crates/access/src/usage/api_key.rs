use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::settings::ApiKey;
use tidegate_core::principal::{ApiKeyIdentity, Principal};
use tidegate_core::problem::Problem;

/// The configured API keys.
#[derive(Debug, Default)]
pub struct ApiKeys {
    /// Enabled keys by the hash of their value, so that the time of a lookup does not depend on the value.
    enabled: HashMap<[u8; 32], Arc<ApiKeyIdentity>>,
    by_id: HashMap<Box<str>, Arc<ApiKeyIdentity>>,
}

impl ApiKeys {
    pub fn compile(settings: &BTreeMap<String, ApiKey>, problems: &mut Vec<Problem>) -> Self {
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

    pub fn find(&self, value: &str) -> Option<&Arc<ApiKeyIdentity>> {
        self.enabled.get(&hash(value))
    }

    /// Returns the key with the id `id`, enabled or not.
    fn of_id(&self, id: &str) -> Option<&Arc<ApiKeyIdentity>> {
        self.by_id.get(id)
    }

    /// Adds the value of the API key to a principal that was read from a record, because records hold only the key's
    /// id. A key that is no longer configured gets no value.
    pub fn complete(&self, principal: Arc<Principal>) -> Arc<Principal> {
        let bare = principal.api_key.as_ref().filter(|key| key.value.expose().is_empty());
        match bare.and_then(|key| self.of_id(&key.id)) {
            Some(key) => Arc::new(Principal { api_key: Some(Arc::clone(key)), ..Principal::clone(&principal) }),
            None => principal,
        }
    }
}

fn hash(value: &str) -> [u8; 32] {
    Sha256::digest(value.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_from_a_record_gets_the_value_of_its_key_back() {
        let key = |value: &str, enabled| ApiKey { value: value.to_owned().into(), enabled };
        let settings = [("mobile", key("hunter2", true)), ("retired", key("hunter3", false))];
        let settings = settings.into_iter().map(|(id, key)| (id.to_owned(), key)).collect();
        let api_keys = ApiKeys::compile(&settings, &mut Vec::new());
        let check = |id: &str, expected: Option<&str>| {
            let key = ApiKeyIdentity { id: id.into(), value: "a secret".to_owned().into() };
            let held = Principal { api_key: Some(Arc::new(key)), ..Principal::default() };
            let record = rmp_serde::to_vec(&held).expect("a record");
            assert!(!record.windows(8).any(|bytes| bytes == b"a secret"));
            let taken_over: Principal = rmp_serde::from_slice(&record).expect("a principal");
            let completed = api_keys.complete(Arc::new(taken_over));
            assert_eq!(completed.identity_variable("apiKey"), expected, "{id}");
            assert_eq!(completed.identity_variable("apiKeyId"), Some(id));
        };
        check("mobile", Some("hunter2"));
        check("retired", Some("hunter3"));
        check("gone", None);
    }
}
