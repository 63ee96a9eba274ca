use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::TlsError;
use super::certificate::{chain, parse_all};
use super::files::Files;
use tidegate_core::clock::{Clock as _, SystemClock, Timestamp};

/// Time before the expiry of a certificate at which warnings begin.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Time between two looks at the expiry of certificates.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The expiry of one certificate, and the last warning about it.
#[derive(Debug)]
pub(super) struct Expiry {
    /// Name of the certificate and its file, for people.
    subject: String,
    kind: Kind,
    not_after: ASN1Time,
    told: AtomicU8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A certificate that this gateway shows. After its expiry the other side refuses it.
    Own,
    /// An authority that has issued others' certificates. Its expiry changes nothing in a TLS handshake: those
    /// certificates are accepted for as long as they are valid themselves.
    Authority,
}

/// The state of a certificate with regard to its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Valid,
    EndsSoon,
    Ended,
}

impl Expiry {
    /// Returns the expiry of a certificate that this gateway shows.
    pub(super) fn of_own(path: &Path, leaf: &X509Certificate<'_>) -> Self {
        let subject = format!("the certificate in `{}`", path.display());
        Expiry { subject, kind: Kind::Own, not_after: leaf.validity().not_after, told: AtomicU8::new(0) }
    }

    /// Returns the expiry of each authority in a PEM file.
    pub(super) fn of_authorities(path: &Path, bytes: &[u8]) -> Result<Vec<Self>, TlsError> {
        let chain = chain(path, bytes)?;
        let expiry = |certificate: &X509Certificate<'_>| Expiry {
            subject: format!("the authority `{}` in `{}`", certificate.subject(), path.display()),
            kind: Kind::Authority,
            not_after: certificate.validity().not_after,
            told: AtomicU8::new(0),
        };
        Ok(parse_all(path, &chain)?.iter().map(expiry).collect())
    }

    /// Returns a warning for the operator, if the certificate has expired at `now` or expires soon.
    pub(super) fn warning(&self, now: Timestamp) -> Option<String> {
        let Expiry { subject, not_after, .. } = self;
        Some(match (self.phase(now), self.kind) {
            (Phase::Valid, _) => return None,
            (Phase::EndsSoon, _) => format!("{subject} expires on {not_after}; renew it"),
            (Phase::Ended, Kind::Own) => format!("{subject} expired on {not_after}, so it is refused; renew it"),
            (Phase::Ended, Kind::Authority) => format!(
                "{subject} expired on {not_after}, and certificates that it issued are still accepted; remove it from the file"
            ),
        })
    }

    /// Returns the same warning, unless it was given before.
    fn news(&self, now: Timestamp) -> Option<(Phase, String)> {
        let phase = self.phase(now);
        let is_news = self.told.fetch_max(phase as u8, Ordering::Relaxed) < phase as u8;
        self.warning(now).filter(|_| is_news).map(|warning| (phase, warning))
    }

    fn phase(&self, now: Timestamp) -> Phase {
        let now = i64::try_from(now.millis() / 1000).unwrap_or(i64::MAX);
        let left = self.not_after.timestamp().saturating_sub(now);
        match left {
            ..0 => Phase::Ended,
            left if left.unsigned_abs() < EXPIRES_SOON.as_secs() => Phase::EndsSoon,
            _ => Phase::Valid,
        }
    }
}

/// Logs a warning of each certificate in `in_force` when it is about to expire and when it has expired, until `stop`.
/// Warnings that are due at the start are not repeated, because reading the configuration has given them.
pub(super) async fn tell<E: AsRef<[Expiry]>>(in_force: impl Fn() -> E, stop: CancellationToken) {
    in_force().as_ref().iter().for_each(|expiry| _ = expiry.news(SystemClock.now()));
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        for (phase, news) in in_force().as_ref().iter().filter_map(|expiry| expiry.news(SystemClock.now())) {
            match phase {
                Phase::Ended => error!("{news}"),
                Phase::Valid | Phase::EndsSoon => warn!("{news}"),
            }
        }
    }
}

/// Returns warnings for the operator about authorities in a PEM file that have expired or expire soon. A file that
/// cannot be read gives none, because that is an error of its own.
pub fn authority_warnings(path: &Path) -> Vec<String> {
    let expiries = Files::read([path]).and_then(|files| Expiry::of_authorities(path, files.get(path)));
    expiries.iter().flatten().filter_map(|expiry| expiry.warning(SystemClock.now())).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const DAY_SECONDS: i64 = 24 * 3600;

    #[test]
    fn an_end_is_told_once_before_it_comes_and_once_when_it_is_there() {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.not_after = rcgen::date_time_ymd(2030, 1, 31);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let path = Path::new("partners.pem");
        let expiries = Expiry::of_authorities(path, pem.as_bytes()).expect("authorities");
        let [authority] = &expiries[..] else { panic!("{expiries:?}") };
        let end = authority.not_after.timestamp();
        let at = |seconds: i64| Timestamp(u64::try_from((end + seconds) * 1000).expect("after 1970"));
        assert_eq!(authority.news(at(-15 * DAY_SECONDS)), None);
        let (phase, news) = authority.news(at(-13 * DAY_SECONDS)).expect("it ends soon");
        assert!(phase == Phase::EndsSoon && news.contains("in `partners.pem` expires on"), "{news}");
        assert_eq!(authority.news(at(0)), None, "told already");
        assert!(authority.warning(at(0)).is_some_and(|warning| warning.contains("expires on")));
        let (phase, news) = authority.news(at(1)).expect("it has ended");
        assert!(phase == Phase::Ended && news.contains("are still accepted"), "{news}");
        assert_eq!(authority.news(at(2)), None);
        assert!(authority.warning(at(2)).is_some(), "whoever asks is told again");
    }
}
