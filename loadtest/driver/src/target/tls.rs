use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

/// The name that the certificate is for.
const NAME: &str = "localhost";

/// A certificate that was made for one run.
pub(super) struct Certificate {
    pub(super) chain: PathBuf,
    pub(super) private_key: PathBuf,
    certificate: CertificateDer<'static>,
}

/// The client's side of TLS.
pub(crate) struct ClientTls {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

impl Certificate {
    pub(super) fn write(directory: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        let (chain, private_key) = (directory.join("chain.pem"), directory.join("key.pem"));
        std::fs::write(&chain, made.cert.pem())?;
        std::fs::write(&private_key, made.signing_key.serialize_pem())?;
        Ok(Certificate { chain, private_key, certificate: made.cert.der().clone() })
    }

    pub(super) fn into_client(self) -> anyhow::Result<ClientTls> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Every connection is a new client: none resumes another's session.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(ClientTls { connector: Arc::new(config).into(), name: ServerName::try_from(NAME)? })
    }
}
