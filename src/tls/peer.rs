use std::io;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client, server};
use tokio_util::sync::CancellationToken;

use super::{CertificateFiles, ClientAuth, ClientTls, PeerTlsSettings, ServerTls, TlsError, TlsSettings};

/// TLS of the links between nodes: each side shows its certificate, and each must be of the cluster's own authority.
/// Whom this node lets in follows its files; how it goes out is as it was when it started.
#[derive(Debug)]
pub struct PeerTls {
    server: Arc<ServerTls>,
    client: ClientTls,
}

impl PeerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn load(settings: &PeerTlsSettings) -> Result<Self, TlsError> {
        let PeerTlsSettings { certificate, private_key, ca } = settings.clone();
        let own = CertificateFiles { certificate, private_key };
        let client = ClientTls::load(Some(&ca), Some(&own), None, &RootCertStore::empty())?;
        let settings =
            TlsSettings { certificates: vec![own], client_ca: Some(ca), client_auth: Some(ClientAuth::Required) };
        Ok(PeerTls { server: Arc::new(ServerTls::load_with(&settings, Vec::new())?), client })
    }

    /// The handshake with a peer that has connected, without a bound on its time.
    ///
    /// # Errors
    /// It is no peer.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<server::TlsStream<S>> {
        self.server.accept(stream).await
    }

    /// The handshake with the peer at `host`, a name or an IP address without a port, without a bound on its time.
    ///
    /// # Errors
    /// It is not that peer.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<client::TlsStream<S>> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(Arc::clone(&self.client.config)).connect(name, stream).await
    }

    /// Follows the files until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        Arc::clone(&self.server).watch(stop).await;
    }
}
