use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client, server};
use tokio_util::sync::CancellationToken;

use super::expiry::tell;
use super::files::{Files, follow};
use super::server::paths;
use super::{CertificateFiles, ClientAuth, ClientTls, PeerTlsSettings, ServerTls, TlsError, TlsSettings};

/// TLS of the links between nodes: each side shows its certificate, and each must be from the cluster's own authority.
/// New links use the present files, open ones stay.
#[derive(Debug)]
pub struct PeerTls {
    settings: PeerTlsSettings,
    server: ServerTls,
    client: ArcSwap<ClientTls>,
}

impl PeerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Returns a [`TlsError`] that says which file has which fault.
    pub fn load(settings: &PeerTlsSettings) -> Result<Self, TlsError> {
        let as_server = server_settings(settings);
        let files = Files::read(paths(&as_server))?;
        let client = ArcSwap::from_pointee(client(settings, &files)?);
        Ok(PeerTls { settings: settings.clone(), server: ServerTls::load_with(&as_server, Vec::new())?, client })
    }

    /// Does the handshake with a peer that has connected, and that has to begin it within `silence`.
    ///
    /// # Errors
    /// Returns an error if the other side is not a peer, and [`io::ErrorKind::TimedOut`] if it sends nothing.
    pub async fn accept<S>(&self, stream: S, silence: Duration) -> io::Result<server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.server.accept_within(stream, silence).await
    }

    /// Does the handshake with the peer at `advertise`, its host and port, without a bound on its time.
    ///
    /// # Errors
    /// Returns an error if the other side is not that peer.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        advertise: &str,
        stream: S,
    ) -> io::Result<client::TlsStream<S>> {
        let tls = self.client.load_full();
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host(advertise).to_owned())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
        };
        TlsConnector::from(Arc::clone(&tls.config)).connect(name, stream).await
    }

    /// Returns true if this node's certificate is for the name that its peers expect at `advertise`, its host and port.
    pub fn covers(&self, advertise: &str) -> bool {
        let name = self.settings.server_name_to_verify.as_deref().unwrap_or_else(|| host(advertise));
        self.server.covers(&name.to_ascii_lowercase())
    }

    /// Returns warnings for the operator about certificates in force that have expired or expire soon.
    pub fn warnings(&self) -> Vec<String> {
        self.server.warnings()
    }

    /// Follows the files until `stop`, and warns of certificates that expire meanwhile.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let paths: Vec<PathBuf> = paths(&server_settings(&self.settings)).map(Path::to_owned).collect();
        let started = self.server.fingerprint();
        let following = follow(&paths, started, stop.clone(), |files| {
            let client = client(&self.settings, &files)?;
            self.server.reload(&files)?;
            self.client.store(Arc::new(client));
            Ok(())
        });
        join(following, tell(|| self.server.expiries(), stop)).await;
    }
}

fn own(settings: &PeerTlsSettings) -> CertificateFiles {
    CertificateFiles { certificate: settings.certificate.clone(), private_key: settings.private_key.clone() }
}

fn server_settings(settings: &PeerTlsSettings) -> TlsSettings {
    TlsSettings {
        certificates: vec![own(settings)],
        client_ca: Some(settings.ca.clone()),
        client_auth: Some(ClientAuth::Required),
    }
}

fn client(settings: &PeerTlsSettings, files: &Files) -> Result<ClientTls, TlsError> {
    let name = settings.server_name_to_verify.as_deref();
    ClientTls::from_files(Some(&settings.ca), Some(&own(settings)), name, &RootCertStore::empty(), files)
}

/// Returns the host of `host:port`; an IPv6 address without its brackets.
fn host(advertise: &str) -> &str {
    let host = advertise.rsplit_once(':').map_or(advertise, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}
