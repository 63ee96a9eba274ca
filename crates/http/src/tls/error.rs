use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// The reason why TLS cannot be set up with these files.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("could not read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not PEM: {why}", path.display())]
    NotPem { path: PathBuf, why: String },
    #[error("`{}` has no certificate; it must have a `-----BEGIN CERTIFICATE-----`", path.display())]
    NoCertificate { path: PathBuf },
    #[error("certificate {number} in `{}` cannot be read as X.509", path.display())]
    Unreadable { path: PathBuf, number: usize },
    #[error("the certificate in `{}` expired on {on}", path.display())]
    Expired { path: PathBuf, on: String },
    #[error("the certificate in `{}` is not valid before {on}", path.display())]
    NotYetValid { path: PathBuf, on: String },
    #[error(
        "the chain in `{}` is broken: certificate {number} is not that of the issuer of certificate {}; put the \
         certificate first, then its issuer's, and so on", path.display(), number - 1
    )]
    BrokenChain { path: PathBuf, number: usize },
    #[error(
        "the chain in `{}` is incomplete: its last certificate was issued by `{issuer}`, whose own certificate clients \
         would have to fetch; append that certificate", path.display()
    )]
    MissingChain { path: PathBuf, issuer: String },
    #[error("the certificate in `{}` has no host name (subjectAltName)", path.display())]
    NoName { path: PathBuf },
    #[error("the certificate in `{}` cannot be used here, because its extendedKeyUsage does not name {name}", path.display())]
    WrongUse { path: PathBuf, name: &'static str },
    #[error("`{}` has no private key; it must have a `-----BEGIN PRIVATE KEY-----`", path.display())]
    NoKey { path: PathBuf },
    #[error("the key in `{}` is encrypted; store it without a password", path.display())]
    EncryptedKey { path: PathBuf },
    #[error("the key in `{}` is of a kind that is not supported; RSA, ECDSA and Ed25519 are", path.display())]
    UnsupportedKey { path: PathBuf },
    #[error("the key in `{}` is not the one of the certificate in `{}`", key.display(), certificate.display())]
    KeyMismatch { certificate: PathBuf, key: PathBuf },
    #[error("a certificate in `{}` cannot be an authority", path.display())]
    NotAnAuthority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("`{name}` cannot be the name of a TLS server")]
    ServerName { name: String },
    #[error("TLS cannot be set up")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}
