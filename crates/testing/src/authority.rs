use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tidegate_http::tls::PeerTlsSettings;

/// An authority of the test's own, and a folder for files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
    pub folder: tempfile::TempDir,
}

/// A certificate and its key in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// Makes one with this name, and writes its certificate as `ca.pem`.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority { issuer: Issuer::new(params, key), certificate, folder };
        authority.write("ca.pem", &authority.certificate);
        authority
    }

    /// Issues a certificate for these host names.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    /// Issues a certificate of which the test changes what it likes.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc.");
        params.distinguished_name.push(DnType::CommonName, "a partner");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    /// Returns the path of a file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into its folder.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes a pair as `NAME.pem` and `NAME.key`; returns the settings that name it.
    pub fn write_pair(&self, name: &str, issued: &Issued) -> String {
        let certificate = self.write(&format!("{name}.pem"), &issued.certificate);
        let key = self.write(&format!("{name}.key"), &issued.key);
        format!("{{ certificate: {}, privateKey: {} }}", certificate.display(), key.display())
    }

    /// Returns the roots of a client that trusts this authority alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// Returns the TLS of a client that trusts this authority alone.
    pub fn client(&self, identity: Option<&Issued>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(self.roots());
        match identity {
            None => builder.with_no_client_auth(),
            Some(issued) => builder.with_client_auth_cert(issued.chain(), issued.private_key()).unwrap(),
        }
    }
}

/// TLS of the links between nodes.
impl Authority {
    /// Writes the files of a node, with a certificate for `host`.
    pub fn issue_to_node(&self, node: &str, host: &str) -> PeerTlsSettings {
        let path = |kind: &str| self.path(&format!("{node}.{kind}"));
        let settings = PeerTlsSettings {
            certificate: path("pem"),
            private_key: path("key"),
            ca: path("ca"),
            server_name_to_verify: None,
        };
        self.renew(&settings, host, &[]);
        settings
    }

    /// Writes a new certificate into these files, and the certificate of this authority beside it.
    pub fn renew(&self, settings: &PeerTlsSettings, host: &str, uses: &[ExtendedKeyUsagePurpose]) {
        let issued = self.issue_with(&[host], |params| params.extended_key_usages = uses.to_vec());
        std::fs::write(&settings.certificate, issued.certificate).unwrap();
        std::fs::write(&settings.private_key, issued.key).unwrap();
        std::fs::write(&settings.ca, &self.certificate).unwrap();
    }
}

impl Issued {
    /// Returns the certificates as rustls takes them.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    /// Returns the key as rustls takes it.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}
