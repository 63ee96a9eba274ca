use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{Acceptor, ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tokio_util::sync::CancellationToken;

use super::certificate::{Certificate, authorities};
use super::expiry::{Expiry, tell};
use super::files::{Files, follow};
use super::{ClientAuth, TlsError, TlsSettings};
use tidegate_core::clock::{Clock, SystemClock, Timestamp};

/// Most sessions that TLS 1.2 clients may resume without a ticket.
const SESSIONS_MAX: usize = 4096;

/// TLS of one listener, with the present content of its files.
#[derive(Debug)]
pub struct ServerTls {
    settings: TlsSettings,
    alpn: Vec<Vec<u8>>,
    state: ArcSwap<State>,
    /// The issuer of session tickets. It is kept across reloads, so that clients can resume.
    tickets: Arc<dyn ProducesTickets>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    certificates: Vec<Certificate>,
    /// The expiry of each certificate and of clients' authorities.
    expiries: Arc<[Expiry]>,
    fingerprint: [u8; 32],
}

impl ServerTls {
    /// Reads the files of a listener that speaks HTTP/1.1.
    ///
    /// # Errors
    /// Returns a [`TlsError`] that says which file has which fault.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        Self::load_with(settings, vec![b"http/1.1".to_vec()])
    }

    /// Does the same as [`ServerTls::load`], for other protocols.
    pub(super) fn load_with(settings: &TlsSettings, alpn: Vec<Vec<u8>>) -> Result<Self, TlsError> {
        let tickets = ring::Ticketer::new().map_err(|error| TlsError::Setup(Box::new(error)))?;
        let files = Files::read(paths(settings))?;
        let state = build(settings, &alpn, &tickets, &files, SystemClock.now())?;
        Ok(ServerTls { settings: settings.clone(), alpn, state: ArcSwap::from_pointee(state), tickets })
    }

    /// Does the handshake with a client, without a bound on its time.
    ///
    /// # Errors
    /// Returns an error if the client leaves, asks for something that is not supported, or has no certificate that is
    /// accepted.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let config = Arc::clone(&self.state.load().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Does the same as [`ServerTls::accept`], for a client that has to begin its handshake within `silence`.
    ///
    /// # Errors
    /// Returns the same errors as [`ServerTls::accept`], and [`io::ErrorKind::TimedOut`] if the client sends nothing.
    pub async fn accept_within<S>(&self, stream: S, silence: Duration) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let hello = timeout(silence, hello).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let config = Arc::clone(&self.state.load().config);
        hello.into_stream(config).await
    }

    /// Returns true if one of the certificates is for `host`.
    pub fn covers(&self, host: &str) -> bool {
        self.state.load().certificates.iter().any(|certificate| certificate.covers(host))
    }

    /// Returns warnings for the operator about certificates in force that expire soon, and about authorities that have
    /// expired or expire soon.
    pub fn warnings(&self) -> Vec<String> {
        let now = SystemClock.now();
        self.expiries().iter().filter_map(|expiry| expiry.warning(now)).collect()
    }

    /// Follows the files until `stop`, and warns of certificates that expire meanwhile.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let paths: Vec<PathBuf> = paths(&self.settings).map(Path::to_owned).collect();
        let started = self.fingerprint();
        let following = follow(&paths, started, stop.clone(), |files| self.reload(&files));
        join(following, tell(|| self.expiries(), stop)).await;
    }

    /// Returns the expiry of each certificate in force.
    pub(super) fn expiries(&self) -> Arc<[Expiry]> {
        Arc::clone(&self.state.load().expiries)
    }

    /// Returns the hash of the files in force.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.state.load().fingerprint
    }

    /// Puts `files` in force.
    pub(super) fn reload(&self, files: &Files) -> Result<(), TlsError> {
        let state = build(&self.settings, &self.alpn, &self.tickets, files, SystemClock.now())?;
        self.state.store(Arc::new(state));
        Ok(())
    }
}

pub(super) fn paths(settings: &TlsSettings) -> impl Iterator<Item = &Path> {
    let pairs = settings.certificates.iter().flat_map(|files| [files.certificate.as_path(), &files.private_key]);
    pairs.chain(settings.client_ca.as_deref())
}

fn build(
    settings: &TlsSettings,
    alpn: &[Vec<u8>],
    tickets: &Arc<dyn ProducesTickets>,
    files: &Files,
    now: Timestamp,
) -> Result<State, TlsError> {
    let parsed = settings.certificates.iter().map(|pair| Certificate::parse(pair, files, now));
    let (certificates, mut expiries): (Vec<Certificate>, Vec<Expiry>) = parsed.collect::<Result<_, _>>()?;
    if let Some(path) = &settings.client_ca {
        expiries.extend(Expiry::of_authorities(path, files.get(path))?);
    }
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(Box::new(error)))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let is_optional = settings.client_auth == Some(ClientAuth::Optional);
            let authorities = authorities(path, files.get(path))?;
            builder.with_client_cert_verifier(authorities.client_verifier(is_optional)?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni::new(&certificates)));
    config.alpn_protocols = alpn.to_vec();
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    // A ticket outlives the files of its listener, and with them the authority that issued a client's certificate. So
    // where clients show certificates, a session is resumed only if this same state has seen it.
    if settings.client_ca.is_none() {
        config.ticketer = Arc::clone(tickets);
    }
    let (config, expiries) = (Arc::new(config), expiries.into());
    Ok(State { config, certificates, expiries, fingerprint: files.fingerprint() })
}

/// A resolver that chooses the certificate by the name that a client asks for.
#[derive(Debug)]
struct BySni {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl BySni {
    fn new(certificates: &[Certificate]) -> Self {
        let mut by_name = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                // If several certificates have a name, the first one is used.
                by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        BySni { by_name, first: certificates.first().map(|certificate| Arc::clone(&certificate.key)) }
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            let exact = self.by_name.get(&name);
            exact.or_else(|| self.by_name.get(&format!("*.{}", name.split_once('.')?.1))).cloned()
        });
        found.or_else(|| self.first.clone())
    }
}
