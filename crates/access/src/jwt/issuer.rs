//! The keys of token issuers: found by OpenID Connect discovery, cached, and refreshed at a limited rate.
//!
//! Keys are used for [`FRESH`]. After that, the next token starts a refresh in the background and is checked with the
//! old keys. A token with an unknown `kid` waits for a refresh, so that a rotated key works at its first use. However
//! many tokens come, an issuer is called no more often than [`REFRESHES_PER_SECOND`] and [`REFRESHES_AT_ONCE`] allow,
//! and by one call at a time. While an issuer cannot be reached, its keys stay in use for [`STALE_MAX`].
//!
//! Source: OpenID Connect Discovery 1.0.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::key_set::{Algorithm, Key, KeySet};
use tidegate_core::error_chain::chain;
use tidegate_core::json;
use tidegate_core::limits::Throttle;
use tidegate_core::lock::lock;
use tidegate_http::http_client::{BackendError, Call, CallError, HttpClient};
use tidegate_telemetry::RepeatedWarning;

/// Time for which keys are used without a refresh.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// Time for which keys are used while the issuer cannot be reached.
const STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Rate of refreshes: one in ten seconds, and a few in a row, so that a key rotation right after the start works.
const REFRESHES_PER_SECOND: f64 = 0.1;
const REFRESHES_AT_ONCE: u32 = 3;

/// Deadline of each of the two calls.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer of an issuer, in bytes.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// Most connections to one issuer.
const MAX_CONNECTIONS: usize = 2;

/// The reason why an issuer's keys could not be fetched.
#[derive(Debug, Error)]
pub enum IssuerError {
    #[error("`{0}` is not an https URL, nor an http URL of a loopback address")]
    Uri(String),
    #[error("`{uri}` cannot be called")]
    Backend {
        uri: String,
        #[source]
        source: BackendError,
    },
    #[error("could not get `{uri}`")]
    Call {
        uri: String,
        #[source]
        source: CallError,
    },
    #[error("`{uri}` answered with status {status}")]
    Status { uri: String, status: StatusCode },
    #[error("`{0}` is not a discovery document")]
    Discovery(String),
    #[error("the discovery document names another issuer")]
    OtherIssuer,
    #[error("`{0}` has no usable key")]
    NoKeys(String),
    #[error("the issuer was called a moment ago; it may be called again within ten seconds")]
    AskedLately,
}

/// The issuers in use. They outlive a reload, and so do their keys.
#[derive(Clone, Debug)]
pub struct Issuers {
    http_client: HttpClient,
    tasks: TaskTracker,
    issuers: Arc<Mutex<HashMap<String, Arc<Issuer>>>>,
}

/// An issuer and its keys.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    http_client: HttpClient,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// Lock that is held while the issuer is called.
    asking: tokio::sync::Mutex<()>,
    refreshes: Option<Throttle>,
    /// Warning that the keys cannot be fetched.
    warning: RepeatedWarning,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    asked: Option<Instant>,
    /// Error of the last refresh, if it failed.
    failure: Option<Arc<IssuerError>>,
}

impl Issuers {
    /// Returns an empty set of issuers. Refreshes in the background run on `tasks`.
    pub fn new(http_client: HttpClient, tasks: TaskTracker) -> Self {
        Issuers { http_client, tasks, issuers: Arc::default() }
    }

    /// Returns the issuer of `url`. It is called when its first token comes.
    ///
    /// # Errors
    /// Returns [`IssuerError::Uri`] if `url` is neither an https URL nor an http URL of a loopback address.
    pub fn issuer(&self, url: &str) -> Result<Arc<Issuer>, IssuerError> {
        is_allowed(url)?;
        let mut issuers = lock(&self.issuers);
        let issuer = issuers.entry(url.to_owned()).or_insert_with(|| {
            Arc::new(Issuer {
                url: url.to_owned(),
                http_client: self.http_client.clone(),
                tasks: self.tasks.clone(),
                state: Mutex::default(),
                asking: tokio::sync::Mutex::default(),
                refreshes: Throttle::new(Some(REFRESHES_PER_SECOND), Some(REFRESHES_AT_ONCE)),
                warning: RepeatedWarning::default(),
            })
        });
        Ok(Arc::clone(issuer))
    }

    /// Removes the issuers that `named` does not accept, because no configuration names them.
    pub fn retain(&self, named: impl Fn(&str) -> bool) {
        lock(&self.issuers).retain(|url, _| named(url));
    }
}

/// The result of looking up a token's key in the cache.
enum Look {
    Use(Key),
    /// The key is usable, but its set should be refreshed.
    UseAndRefresh(Key),
    /// The cached set does not contain the token's key.
    NotThere,
    /// The cache is empty or too old.
    NoKeys,
}

impl Issuer {
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the key of a token, or `None` if the issuer has no key with the id `kid`.
    ///
    /// # Errors
    /// Returns the error of the last refresh if there are no keys, because the issuer cannot be reached or its
    /// documents are not valid.
    pub async fn key(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<Key>, Arc<IssuerError>> {
        let began = Instant::now();
        match self.look(kid, algorithm) {
            Look::Use(key) => return Ok(Some(key)),
            Look::UseAndRefresh(key) => {
                let issuer = Arc::clone(self);
                self.tasks.spawn(async move {
                    if let Ok(_asking) = issuer.asking.try_lock() {
                        issuer.refresh().await;
                    }
                });
                return Ok(Some(key));
            }
            Look::NotThere | Look::NoKeys => {}
        }
        let asking = self.asking.lock().await;
        // A refresh that another call made since this one began is recent enough.
        if self.state().asked.is_none_or(|asked| asked < began) {
            self.refresh().await;
        }
        drop(asking);
        match self.look(kid, algorithm) {
            Look::Use(key) | Look::UseAndRefresh(key) => Ok(Some(key)),
            Look::NotThere => Ok(None),
            Look::NoKeys => Err(self.state().failure.clone().unwrap_or_else(|| Arc::new(IssuerError::AskedLately))),
        }
    }

    fn look(&self, kid: Option<&str>, algorithm: Algorithm) -> Look {
        match &self.state().keys {
            Some((keys, since)) if since.elapsed() < STALE_MAX => match keys.find(kid, algorithm) {
                Some(key) if since.elapsed() < FRESH => Look::Use(key.clone()),
                Some(key) => Look::UseAndRefresh(key.clone()),
                None => Look::NotThere,
            },
            _ => Look::NoKeys,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Fetches the keys, unless the rate of refreshes is exceeded. The caller must hold `asking`.
    async fn refresh(&self) {
        if !self.refreshes.as_ref().is_none_or(Throttle::admit) {
            return;
        }
        let fetched = self.fetch().await;
        let mut state = self.state();
        let now = Instant::now();
        state.asked = Some(now);
        match fetched {
            Ok(keys) => {
                state.failure = None;
                if self.warning.over() {
                    info!(issuer = self.url, "fetched the issuer's keys again");
                }
                state.keys = Some((Arc::new(keys), now));
            }
            Err(error) => {
                let (has_keys, why) = (state.keys.is_some(), chain(&error).to_string());
                if let Some(repeated) = self.warning.due(&why) {
                    warn!(
                        issuer = self.url,
                        has_keys,
                        error = why,
                        repeated,
                        "could not fetch an issuer's keys; retrying with the next tokens"
                    );
                }
                state.failure = Some(Arc::new(error));
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, IssuerError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let uri = format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/'));
        let document = self.get(&uri).await?;
        let document: Discovery = json::from_slice(&document).map_err(|_| IssuerError::Discovery(uri))?;
        // Otherwise the keys of another issuer would be accepted as this one's.
        if document.issuer != self.url {
            return Err(IssuerError::OtherIssuer);
        }
        let keys = self.get(&document.jwks_uri).await?;
        KeySet::parse(&keys).filter(|keys| !keys.is_empty()).ok_or(IssuerError::NoKeys(document.jwks_uri))
    }

    async fn get(&self, uri: &str) -> Result<Bytes, IssuerError> {
        let parsed = is_allowed(uri)?;
        let backend = self.http_client.backend(&parsed, false, MAX_CONNECTIONS);
        let backend = backend.map_err(|source| IssuerError::Backend { uri: uri.to_owned(), source })?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let path_and_query = parsed.path_and_query().ok_or_else(|| IssuerError::Uri(uri.to_owned()))?;
        let call = || Call {
            method: Method::GET,
            path_and_query: path_and_query.clone(),
            headers: headers.clone(),
            body: Bytes::new(),
            timeout: CALL_TIMEOUT,
            answer_max_bytes: ANSWER_MAX_BYTES,
        };
        let answer = self.http_client.send(&backend, call).await;
        let answer = answer.map_err(|source| IssuerError::Call { uri: uri.to_owned(), source })?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            status => Err(IssuerError::Status { uri: uri.to_owned(), status }),
        }
    }
}

/// Parses a URL from which keys may be fetched: over TLS, or from a loopback address.
///
/// # Errors
/// Returns [`IssuerError::Uri`] for any other URL.
fn is_allowed(text: &str) -> Result<Uri, IssuerError> {
    let uri = text.parse::<Uri>().ok();
    let is_allowed = |uri: &Uri| {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") => !host.is_empty(),
            Some("http") => is_loopback,
            _ => false,
        }
    };
    uri.filter(is_allowed).ok_or_else(|| IssuerError::Uri(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        let check = |text: &str, expected: bool| assert_eq!(is_allowed(text).is_ok(), expected, "{text}");
        check("https://id.example.com", true);
        check("https://id.example.com/realms/a", true);
        check("http://127.0.0.1:9000", true);
        check("http://[::1]:9000/", true);
        check("http://id.example.com", false);
        // A name may resolve to any address.
        check("http://localhost:9000", false);
        check("http://127.0.0.1.example.com", false);
        check("ftp://127.0.0.1", false);
        check("id.example.com", false);
        check("https://", false);
        check("", false);
    }
}
