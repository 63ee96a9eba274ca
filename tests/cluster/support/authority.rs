use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;
use tidegate::tls::PeerTlsSettings;

/// An authority of nodes' certificates, and the folder that they are in.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), certificate, folder: tempfile::tempdir().unwrap() }
    }

    /// The files of a node, with a certificate for `host`.
    pub(crate) fn issue(&self, node: &str, host: &str) -> PeerTlsSettings {
        let path = |kind: &str| self.folder.path().join(format!("{node}.{kind}"));
        let settings = PeerTlsSettings {
            certificate: path("pem"),
            private_key: path("key"),
            ca: path("ca"),
            server_name_to_verify: None,
        };
        self.issue_to(&settings, host, &[]);
        settings
    }

    /// Writes a new certificate into these files.
    pub(crate) fn issue_to(&self, settings: &PeerTlsSettings, host: &str, uses: &[ExtendedKeyUsagePurpose]) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages = uses.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let write = |path: &PathBuf, text: &str| std::fs::write(path, text).unwrap();
        write(&settings.certificate, &certificate);
        write(&settings.private_key, &key.serialize_pem());
        write(&settings.ca, &self.certificate);
    }
}
