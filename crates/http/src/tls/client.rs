use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::certificate::{Use, authorities, certified_key, chain, check_use, check_validity, parse_all, private_key};
use super::files::Files;
use super::{CertificateFiles, TlsError};
use tidegate_core::clock::{Clock as _, SystemClock};

/// TLS of the calls of one integration: the authorities that it trusts, and its own certificate.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    /// Name that the backend's certificate must have, if that is not the host.
    pub(crate) server_name: Option<ServerName<'static>>,
    /// Hash of the files and the name, which tells these settings from others.
    pub(crate) fingerprint: [u8; 32],
}

impl ClientTls {
    /// Reads the files. With `ca`, its authorities alone are trusted, and its own certificates if a server shows them;
    /// without `ca`, `roots` are trusted.
    ///
    /// # Errors
    /// Returns a [`TlsError`] that says which file has which fault.
    pub fn load(
        ca: Option<&PathBuf>,
        identity: Option<&CertificateFiles>,
        server_name: Option<&str>,
        roots: &RootCertStore,
    ) -> Result<Self, TlsError> {
        let own = identity.into_iter().flat_map(|files| [files.certificate.as_path(), &files.private_key]);
        let files = Files::read(ca.into_iter().map(PathBuf::as_path).chain(own))?;
        Self::from_files(ca, identity, server_name, roots, &files)
    }

    /// Does the same as [`ClientTls::load`], with files that were read already.
    pub(super) fn from_files(
        ca: Option<&PathBuf>,
        identity: Option<&CertificateFiles>,
        server_name: Option<&str>,
        roots: &RootCertStore,
        files: &Files,
    ) -> Result<Self, TlsError> {
        let verifier = ca.map(|path| authorities(path, files.get(path))?.server_verifier()).transpose()?;
        let identity = identity.map(|settings| own_identity(settings, files)).transpose()?;
        let server_name = server_name
            .map(|name| {
                ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName { name: name.to_owned() })
            })
            .transpose()?;
        let name = server_name.as_ref().map(|name| name.to_str().into_owned()).unwrap_or_default();
        let fingerprint = files.fingerprint_with(name.as_bytes());
        let config = match verifier {
            Some(verifier) => config_by(verifier, identity),
            None => client_config(roots.clone(), identity),
        };
        let config = config.map_err(|error| TlsError::Setup(Box::new(error)))?;
        Ok(ClientTls { config: Arc::new(config), server_name, fingerprint })
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(super) fn own_identity(settings: &CertificateFiles, files: &Files) -> Result<Identity, TlsError> {
    let path = settings.certificate.as_path();
    let chain = chain(path, files.get(path))?;
    let parsed = parse_all(path, &chain)?;
    check_validity(path, &parsed[0], SystemClock.now())?;
    check_use(path, &parsed[0], Use::Client)?;
    // Checks that the key is the certificate's.
    certified_key(settings, files, chain.clone())?;
    let key = private_key(&settings.private_key, files.get(&settings.private_key))?;
    Ok((chain, key))
}

/// Returns the configuration of a TLS client: TLS 1.2 and 1.3 with ring.
///
/// # Errors
/// Returns an error if the key does not belong to the certificate.
pub fn client_config(roots: RootCertStore, identity: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    identified(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots), identity)
}

/// Does the same as [`client_config`], with a verifier in place of roots.
fn config_by(verifier: Arc<dyn ServerCertVerifier>, identity: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.dangerous();
    identified(builder.with_custom_certificate_verifier(verifier), identity)
}

fn identified(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<Identity>,
) -> Result<ClientConfig, rustls::Error> {
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key),
        None => Ok(builder.with_no_client_auth()),
    }
}
