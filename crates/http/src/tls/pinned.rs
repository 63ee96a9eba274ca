//! Pinned certificates: a certificate that is itself in a file of authorities is trusted, if the other side shows it
//! and has its key.
//!
//! Self-signed certificates are often made as authorities (`CA:TRUE`, as `openssl req -x509` does), and webpki accepts
//! no authority as a server or client. Here the operator names the certificate byte for byte, so its chain adds
//! nothing. Its validity period, its use and, for a server, its name must still be right, and the handshake proves its
//! key.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ExtendedKeyPurpose, RootCertStore,
    SignatureScheme,
};
use x509_parser::certificate::X509Certificate;

use super::TlsError;
use super::certificate::Use;

/// The certificates of a file of authorities.
#[derive(Clone)]
pub(super) struct Authorities {
    pub(super) roots: RootCertStore,
    pub(super) pinned: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Returns a verifier of servers' certificates.
    ///
    /// # Errors
    /// Returns [`TlsError::Setup`] if there is no authority.
    pub(super) fn server_verifier(self) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots), provider).build();
        let webpki = webpki.map_err(|error| TlsError::Setup(Box::new(error)))?;
        Ok(Arc::new(PinnedOr { pinned: self.pinned, otherwise: webpki }))
    }

    /// Returns a verifier of clients' certificates. With `is_optional` it accepts clients that show none.
    ///
    /// # Errors
    /// Returns [`TlsError::Setup`] if there is no authority.
    pub(super) fn client_verifier(self, is_optional: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots), provider);
        let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
        let webpki = builder.build().map_err(|error| TlsError::Setup(Box::new(error)))?;
        Ok(Arc::new(PinnedOr { pinned: self.pinned, otherwise: webpki }))
    }
}

/// A verifier that accepts the pinned certificates itself, and passes all others and every signature to another
/// verifier.
struct PinnedOr<V: ?Sized> {
    pinned: Vec<CertificateDer<'static>>,
    otherwise: Arc<V>,
}

impl<V: ?Sized> PinnedOr<V> {
    /// Checks a pinned certificate: its validity period, and that it is for `shown`. Returns `None` if the certificate
    /// is not pinned.
    fn verify(&self, shown: Use, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), Error>> {
        self.pinned.iter().any(|pinned| pinned == certificate).then(|| {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
                .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
            check(shown, &parsed, now).map_err(Error::InvalidCertificate)
        })
    }
}

fn check(shown: Use, certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let validity = certificate.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    if shown.is_allowed_by(certificate) {
        return Ok(());
    }
    let required = match shown {
        Use::Server => ExtendedKeyPurpose::ServerAuth,
        Use::Client => ExtendedKeyPurpose::ClientAuth,
    };
    Err(CertificateError::InvalidPurposeContext { required, presented: Vec::new() })
}

impl ServerCertVerifier for PinnedOr<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verify(Use::Server, end_entity, now) {
            Some(verified) => {
                verified?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            None => self.otherwise.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.otherwise.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.otherwise.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.otherwise.supported_verify_schemes()
    }
}

impl ClientCertVerifier for PinnedOr<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.otherwise.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.otherwise.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.otherwise.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.verify(Use::Client, end_entity, now) {
            Some(verified) => verified.map(|()| ClientCertVerified::assertion()),
            None => self.otherwise.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.otherwise.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.otherwise.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.otherwise.supported_verify_schemes()
    }
}

impl<V: ?Sized> fmt::Debug for PinnedOr<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedOr").field("pinned", &self.pinned.len()).finish_non_exhaustive()
    }
}
