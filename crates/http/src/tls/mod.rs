//! TLS on every side: listeners ([`ServerTls`]), calls to backends ([`ClientTls`]), links between nodes ([`PeerTls`]).
//!
//! The implementation is rustls with ring, TLS 1.2 and 1.3. Files are PEM: certificate chains, keys as PKCS#8, PKCS#1
//! or SEC1. Everything is checked when it is read, and [`TlsError`] has a sentence for each possible fault. A listener
//! follows its files ([`ServerTls::watch`]): new connections get the new certificate, open ones stay, and files with a
//! fault are logged and not used.

mod certificate;
mod client;
mod client_certificate;
mod error;
mod expiry;
mod files;
mod peer;
mod pinned;
mod server;
mod settings;

pub use certificate::Certificate;
pub use client::{ClientTls, client_config};
pub use client_certificate::{client_cert, client_cert_of_pem};
pub use error::TlsError;
pub use expiry::authority_warnings;
pub use peer::PeerTls;
pub use server::ServerTls;
pub use settings::{CertificateFiles, ClientAuth, PeerTlsSettings, TlsSettings};
