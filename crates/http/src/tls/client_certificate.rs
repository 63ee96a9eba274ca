use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use tidegate_core::request_context::{ClientCert, Validity};

/// The format `May 28 12:30:02 2019 GMT`.
const OPENSSL_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[month repr:short] [day padding:space] [hour]:[minute]:[second] [year] GMT");

/// Returns the certificate of a client as events describe it, or `None` if it cannot be read.
///
/// Names are written by RFC 4514, the most specific part first.
///
/// Source: AWS, "Create Lambda proxy integrations for HTTP APIs in API Gateway", payload format.
pub fn client_cert(der: &CertificateDer<'_>) -> Option<ClientCert> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(ClientCert {
        client_cert_pem: pem(der),
        subject_dn: distinguished_name(certificate.subject()),
        issuer_dn: distinguished_name(certificate.issuer()),
        serial_number: certificate.raw_serial_as_string(),
        validity: Validity {
            not_before: openssl_time(certificate.validity().not_before),
            not_after: openssl_time(certificate.validity().not_after),
        },
    })
}

/// Returns the same as [`client_cert`], for a certificate in PEM.
pub fn client_cert_of_pem(pem: &str) -> Option<ClientCert> {
    client_cert(&CertificateDer::from_pem_slice(pem.as_bytes()).ok()?)
}

fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = String::with_capacity(base64.len() + base64.len() / 64 + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    for start in (0..base64.len()).step_by(64) {
        text.push_str(&base64[start..base64.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn openssl_time(time: ASN1Time) -> String {
    let time: OffsetDateTime = time.to_datetime();
    time.format(OPENSSL_TIME).unwrap_or_default()
}

fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts = name.iter_rdn().map(|part| {
        let values = part.iter().map(|attribute| {
            let oid = attribute.attr_type();
            let key = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
            format!("{key}={}", escape(attribute.as_str().unwrap_or_default()))
        });
        values.collect::<Vec<_>>().join("+")
    });
    let mut parts: Vec<String> = parts.collect();
    parts.reverse();
    parts.join(",")
}

/// Escapes a value by RFC 4514, section 2.4.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for (index, character) in value.char_indices() {
        let at_edge = (index == 0 && matches!(character, ' ' | '#'))
            || (index + character.len_utf8() == value.len() && character == ' ');
        if at_edge || matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let check = |value: &str, expected: &str| assert_eq!(escape(value), expected);
        check("chat", "chat");
        check("Acme, Inc.", "Acme\\, Inc.");
        check(" a ", "\\ a\\ ");
        check("#a#", "\\#a#");
        check("a+b=c", "a\\+b=c");
    }

    #[test]
    fn times_are_written_as_openssl_writes_them() {
        let time = ASN1Time::from_timestamp(1_628_152_564).expect("a time");
        assert_eq!(openssl_time(time), "Aug  5 08:36:04 2021 GMT");
    }
}
