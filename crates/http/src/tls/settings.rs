use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS of a listener. Files are read again when they change; relative paths begin at the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificates, chosen by the host name that a client asks for (SNI); the first is for clients that ask for no
    /// name or for an unknown one.
    #[schemars(length(min = 1, max = 100))]
    pub certificates: Vec<CertificateFiles>,

    /// Authorities that must have issued clients' certificates (mTLS), in PEM; a client certificate that is in this
    /// file itself is accepted too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,

    /// With `clientCa`: requirement that a client has a certificate. `REQUIRED` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate, followed by those that lead to its root, in PEM.
    pub certificate: PathBuf,

    /// The certificate's key in PEM: PKCS#8, PKCS#1 or SEC1, without a password.
    pub private_key: PathBuf,
}

/// The requirement that clients have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientAuth {
    /// A client may have no certificate; one that it shows must be valid.
    Optional,
    /// A client without a certificate is refused.
    Required,
}

/// TLS of the links between nodes, both ways: every node proves itself by a certificate of the cluster's own authority.
/// Files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerTlsSettings {
    /// This node's certificate, for the host that it advertises, in PEM. It is used as a server's and as a client's.
    pub certificate: PathBuf,

    /// The certificate's key in PEM.
    pub private_key: PathBuf,

    /// Authorities that must have issued peers' certificates, in PEM; a peer's certificate that is in this file itself
    /// is trusted too.
    pub ca: PathBuf,

    /// The name that peers' certificates must have, in place of the host that each of them advertises: nodes may share
    /// one certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name_to_verify: Option<String>,
}
