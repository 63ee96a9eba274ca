//! [`HttpClient`]: the backends in use, and the resources that they share.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use http::Uri;
use http::uri::Scheme;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use super::backend::{Address, Backend};
use super::{Answer, Call, CallError, EgressSettings, Resolver, SystemResolver, exchange};
use crate::tls::{CertificateFiles, ClientTls, TlsError, client_config};
use tidegate_core::lock::lock;

/// The outbound HTTP client. It is cheap to clone, and clones share everything.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

/// The resources that all backends of a client share.
pub(super) struct Shared {
    /// Owner of every connection, connection attempt and keeper.
    pub(super) tasks: TaskTracker,

    /// True after [`HttpClient::close_idle`]: a connection that becomes idle is closed.
    pub(super) closing: AtomicBool,

    /// Number of backends that are saturated.
    pub(super) saturated: AtomicUsize,

    http1_tls: TlsConnector,
    http2_tls: TlsConnector,
    roots: RootCertStore,
    pub(super) egress: ArcSwap<EgressSettings>,
    pub(super) resolver: Arc<dyn Resolver>,
    backends: Mutex<HashMap<BackendKey, Weak<Backend>>>,
}

#[derive(PartialEq, Eq, Hash)]
struct BackendKey {
    https: bool,
    host: String,
    port: u16,
    http2: bool,
    /// Fingerprint of the TLS settings, if the backend has its own.
    tls: Option<[u8; 32]>,
}

/// The options with which a backend is called.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// HTTP/2: offered by ALPN for `https`, used with prior knowledge for `http`.
    pub http2: bool,
    /// Most HTTP/1.1 connections at a time. HTTP/2 always has one connection.
    pub max_connections: usize,
    /// TLS settings for `https`, in place of the client's own.
    pub tls: Option<Arc<ClientTls>>,
}

/// The reason why a URI is not the address of a backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("the scheme must be http or https")]
    Scheme,
    #[error("there is no host")]
    Host,
    #[error("credentials in a URI are not supported")]
    Credentials,
    #[error("`{host}` cannot be the name of a TLS server")]
    ServerName { host: String },
}

impl HttpClient {
    /// Returns a client that trusts Mozilla's root certificates. All its tasks are spawned on `tasks`.
    pub fn new(tasks: TaskTracker) -> Self {
        Self::build(tasks, mozilla_roots(), Arc::new(SystemResolver))
    }

    /// Returns a client like [`HttpClient::new`] does, with names resolved by `resolver`.
    pub fn with_resolver(tasks: TaskTracker, resolver: Arc<dyn Resolver>) -> Self {
        Self::build(tasks, mozilla_roots(), resolver)
    }

    /// Replaces the egress rules, for new connections only. Open connections stay.
    pub fn set_egress(&self, egress: EgressSettings) {
        self.shared.egress.store(Arc::new(egress));
    }

    /// Reads TLS settings for backends: `ca` is trusted in place of this client's roots, `identity` is the client
    /// certificate, and `server_name` is the name that the backend's certificate must have.
    ///
    /// # Errors
    /// Returns a `TlsError` if one of the files cannot be read or is not valid.
    pub fn tls(
        &self,
        ca: Option<&PathBuf>,
        identity: Option<&CertificateFiles>,
        server_name: Option<&str>,
    ) -> Result<ClientTls, TlsError> {
        ClientTls::load(ca, identity, server_name, &self.shared.roots)
    }

    /// Returns a client that trusts `roots` and Mozilla's root certificates.
    ///
    /// # Errors
    /// Returns an error if one of `roots` is not a valid certificate.
    pub fn with_roots(
        tasks: TaskTracker,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, rustls::Error> {
        let mut store = mozilla_roots();
        for root in roots {
            store.add(root)?;
        }
        Ok(Self::build(tasks, store, Arc::new(SystemResolver)))
    }

    fn build(tasks: TaskTracker, roots: RootCertStore, resolver: Arc<dyn Resolver>) -> Self {
        let config = client_config(roots.clone(), None).expect("ring has cipher suites for TLS 1.2 and 1.3");
        let shared = Shared {
            tasks,
            closing: AtomicBool::new(false),
            saturated: AtomicUsize::new(0),
            http1_tls: connector(&config, false),
            http2_tls: connector(&config, true),
            roots,
            egress: ArcSwap::default(),
            resolver,
            backends: Mutex::default(),
        };
        HttpClient { shared: Arc::new(shared) }
    }

    /// Returns the backend at the scheme, host and port of `uri`; the path is ignored. Calls with the same address and
    /// `http2` return the same backend, as long as it is held or has connections; the largest `max_connections` among
    /// these calls applies. `max_connections` bounds HTTP/1.1; HTTP/2 has one connection.
    ///
    /// # Errors
    /// Returns a [`BackendError`] if `uri` is not the address of a backend.
    pub fn backend(&self, uri: &Uri, http2: bool, max_connections: usize) -> Result<Arc<Backend>, BackendError> {
        self.backend_with(uri, BackendOptions { http2, max_connections, tls: None })
    }

    /// Returns a backend like [`HttpClient::backend`] does, with all options. Backends with different TLS settings are
    /// separate backends.
    ///
    /// # Errors
    /// Returns a [`BackendError`] if `uri` is not the address of a backend.
    pub fn backend_with(&self, uri: &Uri, options: BackendOptions) -> Result<Arc<Backend>, BackendError> {
        let BackendOptions { http2, max_connections, tls: own_tls } = options;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(BackendError::Scheme),
        };
        let authority = uri.authority().ok_or(BackendError::Host)?;
        if authority.as_str().contains('@') {
            return Err(BackendError::Credentials);
        }
        // Only a URI has an IPv6 address in brackets.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(BackendError::Host);
        }
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let tls = if https {
            let server_name = match own_tls.as_ref().and_then(|tls| tls.server_name.clone()) {
                Some(server_name) => server_name,
                None => ServerName::try_from(host.clone())
                    .map_err(|_invalid| BackendError::ServerName { host: host.clone() })?,
            };
            let connector = match &own_tls {
                Some(tls) => connector(&tls.config, http2),
                None if http2 => self.shared.http2_tls.clone(),
                None => self.shared.http1_tls.clone(),
            };
            Some((connector, server_name))
        } else {
            None
        };

        let mut backends = lock(&self.shared.backends);
        backends.retain(|_key, backend| backend.strong_count() > 0);
        let tls_key = own_tls.map(|tls| tls.fingerprint).filter(|_| https);
        let key = BackendKey { https, host: host.clone(), port, http2, tls: tls_key };
        if let Some(backend) = backends.get(&key).and_then(Weak::upgrade) {
            backend.raise_max_connections(max_connections);
            return Ok(backend);
        }
        let address = Address::new(authority.clone(), host, port, tls);
        let backend = Arc::new(Backend::new(Arc::clone(&self.shared), address, http2, max_connections));
        backends.insert(key, Arc::downgrade(&backend));
        Ok(backend)
    }

    /// Sends one request and reads its answer. Dropping the future ends the call and closes an HTTP/1.1 connection that
    /// carries its request.
    ///
    /// `call` makes the request, and is called again if the request has to be sent again. The deadline is that of the
    /// first.
    ///
    /// # Errors
    /// Returns a [`CallError`] if there is no whole answer by the deadline.
    pub async fn send(&self, backend: &Arc<Backend>, call: impl FnMut() -> Call) -> Result<Answer, CallError> {
        exchange::exchange(backend, call).await
    }

    /// Returns true if any backend is saturated.
    pub fn is_saturated(&self) -> bool {
        self.shared.saturated.load(Ordering::Relaxed) > 0
    }

    /// Returns every backend that is in use.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        let backends = lock(&self.shared.backends);
        backends.values().filter_map(Weak::upgrade).collect()
    }

    /// Closes all idle connections, and from now on each connection as soon as no call needs it. Calls still work. This
    /// is a step of the shutdown: without it, idle connections keep the tracker busy until their idle timeout.
    pub fn close_idle(&self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        for backend in self.backends() {
            backend.close_idle();
        }
    }
}

fn connector(config: &ClientConfig, http2: bool) -> TlsConnector {
    let mut config = config.clone();
    config.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Arc::new(config).into()
}

fn mozilla_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}
