use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_PKIX_AUTHORITY_INFO_ACCESS;
use x509_parser::time::ASN1Time;

use super::expiry::Expiry;
use super::files::Files;
use super::pinned::Authorities;
use super::{CertificateFiles, TlsError};
use tidegate_core::clock::Timestamp;

/// A certificate that can be served: checked, and with its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// Host names of the certificate, in lower case; some begin with `*.`.
    pub(super) names: Vec<String>,
}

impl Certificate {
    /// Parses and checks a certificate and its key. Returns them with the certificate's expiry.
    pub(super) fn parse(
        settings: &CertificateFiles,
        files: &Files,
        now: Timestamp,
    ) -> Result<(Self, Expiry), TlsError> {
        let path = settings.certificate.as_path();
        let chain = chain(path, files.get(path))?;
        let parsed = parse_all(path, &chain)?;
        let leaf = &parsed[0];
        check_validity(path, leaf, now)?;
        check_use(path, leaf, Use::Server)?;
        check_chain(path, &parsed)?;
        let names = names(leaf);
        if names.is_empty() {
            return Err(TlsError::NoName { path: path.to_owned() });
        }
        let expiry = Expiry::of_own(path, leaf);
        let key = certified_key(settings, files, chain)?;
        Ok((Certificate { key: Arc::new(key), names }, expiry))
    }

    /// Returns true if the certificate is for `host`.
    pub(super) fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => name == host,
        })
    }
}

/// Reads a chain and its key, which a client or a server shows.
pub(super) fn certified_key(
    settings: &CertificateFiles,
    files: &Files,
    chain: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, TlsError> {
    let path = settings.private_key.as_path();
    let key = rustls::crypto::ring::sign::any_supported_type(&private_key(path, files.get(path))?)
        .map_err(|_| TlsError::UnsupportedKey { path: path.to_owned() })?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(key),
        Err(_) => {
            Err(TlsError::KeyMismatch { certificate: settings.certificate.clone(), key: settings.private_key.clone() })
        }
    }
}

/// Reads the certificates of a PEM file, which must have at least one.
pub(super) fn chain(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let chain = chain.map_err(|error| TlsError::NotPem { path: path.to_owned(), why: error.to_string() })?;
    if chain.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(chain) }
}

/// Reads the first key of a PEM file.
pub(super) fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        let path = path.to_owned();
        let is_encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
            .iter()
            .any(|mark| bytes.windows(mark.len()).any(|window| window == *mark));
        match error {
            _ if is_encrypted => TlsError::EncryptedKey { path },
            pem::Error::NoItemsFound => TlsError::NoKey { path },
            error => TlsError::NotPem { path, why: error.to_string() },
        }
    })
}

/// Reads the authorities of a PEM file.
pub(super) fn authorities(path: &Path, bytes: &[u8]) -> Result<Authorities, TlsError> {
    let (mut roots, pinned) = (RootCertStore::empty(), chain(path, bytes)?);
    for certificate in &pinned {
        let added = roots.add(certificate.clone());
        added.map_err(|source| TlsError::NotAnAuthority { path: path.to_owned(), source })?;
    }
    Ok(Authorities { roots, pinned })
}

/// Parses each certificate of a chain.
pub(super) fn parse_all<'a>(
    path: &Path,
    chain: &'a [CertificateDer<'static>],
) -> Result<Vec<X509Certificate<'a>>, TlsError> {
    let parsed = chain.iter().enumerate().map(|(index, der)| match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(TlsError::Unreadable { path: path.to_owned(), number: index + 1 }),
    });
    parsed.collect()
}

pub(super) fn check_validity(path: &Path, leaf: &X509Certificate<'_>, now: Timestamp) -> Result<(), TlsError> {
    let validity = leaf.validity();
    let now = i64::try_from(now.millis() / 1000).unwrap_or(i64::MAX);
    let on = |time: ASN1Time| time.to_string();
    if now > validity.not_after.timestamp() {
        return Err(TlsError::Expired { path: path.to_owned(), on: on(validity.not_after) });
    }
    if now < validity.not_before.timestamp() {
        return Err(TlsError::NotYetValid { path: path.to_owned(), on: on(validity.not_before) });
    }
    Ok(())
}

/// The side of a connection on which a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Client,
    Server,
}

impl Use {
    /// Returns true if a certificate may be shown for this use. A certificate with an extendedKeyUsage must name the
    /// use.
    pub(super) fn is_allowed_by(self, leaf: &X509Certificate<'_>) -> bool {
        let Ok(Some(uses)) = leaf.extended_key_usage() else { return true };
        let is_for = match self {
            Use::Client => uses.value.client_auth,
            Use::Server => uses.value.server_auth,
        };
        is_for || uses.value.any
    }
}

/// Refuses a certificate of this node whose extendedKeyUsage would make the other side refuse it.
pub(super) fn check_use(path: &Path, leaf: &X509Certificate<'_>, shown: Use) -> Result<(), TlsError> {
    let name = match shown {
        Use::Client => "clientAuth",
        Use::Server => "serverAuth",
    };
    if shown.is_allowed_by(leaf) { Ok(()) } else { Err(TlsError::WrongUse { path: path.to_owned(), name }) }
}

/// Checks that each certificate was issued by the subject of the next one. The last may be issued by an authority that
/// clients know. But a lone certificate that says where its issuer's certificate can be fetched was issued by an
/// intermediate authority, which clients do not know.
fn check_chain(path: &Path, chain: &[X509Certificate<'_>]) -> Result<(), TlsError> {
    for (index, pair) in chain.windows(2).enumerate() {
        if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
            return Err(TlsError::BrokenChain { path: path.to_owned(), number: index + 2 });
        }
    }
    if let [leaf] = chain
        && leaf.issuer().as_raw() != leaf.subject().as_raw()
        && leaf.extensions().iter().any(|extension| extension.oid == OID_PKIX_AUTHORITY_INFO_ACCESS)
    {
        return Err(TlsError::MissingChain { path: path.to_owned(), issuer: leaf.issuer().to_string() });
    }
    Ok(())
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => ip(octets).map(|ip| ip.to_string()),
        _ => None,
    });
    names.collect()
}

fn ip(octets: &[u8]) -> Option<std::net::IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(std::net::IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(std::net::IpAddr::from)).ok()
}
