use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join;
use rustls::crypto::ring;
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::certificate::{Certificate, authorities};
use super::expiry::{Expiry, tell};
use super::files::{Files, follow};
use super::{ClientAuth, TlsError, TlsSettings};
use crate::clock::{Clock, SystemClock, Timestamp};

/// Sessions that TLS 1.2 clients may resume without a ticket.
const SESSIONS_MAX: usize = 4096;

/// TLS of one listener, as its files say.
#[derive(Debug)]
pub struct ServerTls {
    settings: TlsSettings,
    alpn: Vec<Vec<u8>>,
    state: ArcSwap<State>,
    /// Seals tickets; kept across reloads, so that clients resume.
    tickets: Arc<dyn ProducesTickets>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    certificates: Vec<Certificate>,
    /// The ends of the certificates and of clients' authorities.
    expiries: Arc<[Expiry]>,
    fingerprint: [u8; 32],
}

impl ServerTls {
    /// Reads the files of a listener that speaks HTTP/1.1.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        Self::load_with(settings, vec![b"http/1.1".to_vec()])
    }

    /// As [`ServerTls::load`], for other protocols.
    pub(super) fn load_with(settings: &TlsSettings, alpn: Vec<Vec<u8>>) -> Result<Self, TlsError> {
        let tickets = ring::Ticketer::new().map_err(|error| TlsError::Setup(Box::new(error)))?;
        let files = Files::read(paths(settings))?;
        let state = build(settings, &alpn, &tickets, &files, SystemClock.now())?;
        Ok(ServerTls { settings: settings.clone(), alpn, state: ArcSwap::from_pointee(state), tickets })
    }

    /// The handshake with a client, without a bound on its time.
    ///
    /// # Errors
    /// The client goes, or wants what is not to be had, or is not who it must be.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let config = Arc::clone(&self.state.load().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Whether one of the certificates is for this host.
    pub fn covers(&self, host: &str) -> bool {
        self.state.load().certificates.iter().any(|certificate| certificate.covers(host))
    }

    /// Sentences for the operator about certificates in force that end soon, and authorities that have ended or end soon.
    pub fn warnings(&self) -> Vec<String> {
        let now = SystemClock.now();
        self.expiries().iter().filter_map(|expiry| expiry.warning(now)).collect()
    }

    /// Follows the files until `stop`, and tells of certificates that end meanwhile.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let paths: Vec<PathBuf> = paths(&self.settings).map(Path::to_owned).collect();
        let started = self.fingerprint();
        let following = follow(&paths, started, stop.clone(), |files| self.reload(&files));
        join(following, tell(|| self.expiries(), stop)).await;
    }

    /// The ends of the certificates in force.
    pub(super) fn expiries(&self) -> Arc<[Expiry]> {
        Arc::clone(&self.state.load().expiries)
    }

    /// Tells the files in force from all others.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.state.load().fingerprint
    }

    /// Puts files in force.
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
        Some(path) => builder.with_client_cert_verifier(verifier(authorities(path, files.get(path))?, settings)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni::new(&certificates)));
    config.alpn_protocols = alpn.to_vec();
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    // A ticket outlives its listener's files, and with them the authority that a client's certificate came from: where
    // clients show certificates, only sessions that this very state has seen are resumed.
    if settings.client_ca.is_none() {
        config.ticketer = Arc::clone(tickets);
    }
    let (config, expiries) = (Arc::new(config), expiries.into());
    Ok(State { config, certificates, expiries, fingerprint: files.fingerprint() })
}

fn verifier(
    roots: RootCertStore,
    settings: &TlsSettings,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match settings.client_auth {
        Some(ClientAuth::Optional) => builder.allow_unauthenticated(),
        Some(ClientAuth::Required) | None => builder,
    };
    builder.build().map(|verifier| verifier as _).map_err(|error| TlsError::Setup(Box::new(error)))
}

/// Chooses the certificate by the name that a client asks for.
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
                // The first certificate for a name counts.
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
