use rcgen::ExtendedKeyUsagePurpose;
use tidegate::tls::PeerTlsSettings;

use super::Authority;

impl Authority {
    /// The files of a node, with a certificate for `host`.
    pub(crate) fn issue_to_node(&self, node: &str, host: &str) -> PeerTlsSettings {
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

    /// Writes a new certificate into these files, and who vouches for it.
    pub(crate) fn renew(&self, settings: &PeerTlsSettings, host: &str, uses: &[ExtendedKeyUsagePurpose]) {
        let issued = self.issue_with(&[host], |params| params.extended_key_usages = uses.to_vec());
        std::fs::write(&settings.certificate, issued.certificate).unwrap();
        std::fs::write(&settings.private_key, issued.key).unwrap();
        std::fs::write(&settings.ca, &self.certificate).unwrap();
    }
}
