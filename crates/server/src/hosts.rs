use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The Hosts for which a listener answers requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHosts {
    All,
    /// Names of the loopback interface. A name of somebody else that resolves to it (DNS rebinding) is not among them.
    Loopback,
    Listed(Vec<HostPattern>),
}

impl AllowedHosts {
    /// Returns the Hosts of the public listener: those `listed`, or all if none is listed.
    pub fn public(listed: &[HostPattern]) -> Self {
        if listed.is_empty() { AllowedHosts::All } else { AllowedHosts::Listed(listed.to_vec()) }
    }

    /// Returns the Hosts of the internal listener: those `listed`. If none is listed, a listener on the loopback
    /// interface answers only for names of that interface, and any other listener for all Hosts, because probes call it
    /// by any of its addresses.
    pub fn internal(address: SocketAddr, listed: &[HostPattern]) -> Self {
        match Self::public(listed) {
            AllowedHosts::All if address.ip().to_canonical().is_loopback() => AllowedHosts::Loopback,
            hosts => hosts,
        }
    }

    /// Returns true if requests for `host` are answered.
    pub(super) fn allow(&self, host: &str) -> bool {
        match self {
            AllowedHosts::All => true,
            AllowedHosts::Loopback => is_loopback_name(split_port(host).0),
            AllowedHosts::Listed(_) => self.list(host),
        }
    }

    /// Returns true if the configuration lists `host`.
    pub(super) fn list(&self, host: &str) -> bool {
        match self {
            AllowedHosts::Listed(patterns) => patterns.iter().any(|pattern| pattern.matches(host)),
            AllowedHosts::All | AllowedHosts::Loopback => false,
        }
    }
}

/// Returns true if `name`, a Host without its port, is `localhost`, a name under it, or an address of the loopback
/// interface.
fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_localhost = |name: &str| name.eq_ignore_ascii_case("localhost");
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    is_localhost(name)
        || name.rsplit_once('.').is_some_and(|(below, parent)| !below.is_empty() && is_localhost(parent))
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// A host name for which a listener answers requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

impl HostPattern {
    /// Returns true if `host` matches. Any port matches, unless the pattern has one.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let (name, port) = split_port(&host);
        let name = name.strip_suffix('.').unwrap_or(name);
        let (pattern, pattern_port) = split_port(&self.0);
        let name_matches = match pattern.strip_prefix("*.") {
            Some(parent) => {
                name.strip_suffix(parent).and_then(|rest| rest.strip_suffix('.')).is_some_and(|l| !l.is_empty())
            }
            None => name == pattern,
        };
        name_matches && (pattern_port.is_none() || port == pattern_port)
    }
}

/// Splits a Host into its name, with brackets if it is an IPv6 address, and its port.
pub(super) fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = text.strip_prefix("*.").unwrap_or(&text);
        let is_host = plain.parse::<http::uri::Authority>().is_ok() && !plain.contains(['@', '*']) && !plain.is_empty();
        let error = format!("`{text}` is not a host name such as `chat.example.com` or `*.example.com`");
        if is_host { Ok(HostPattern(text.to_ascii_lowercase())) } else { Err(error) }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::try_from(text.to_owned()).expect("a pattern")
    }

    #[test]
    fn hosts_match_without_case_and_with_any_port_unless_one_is_named() {
        let check = |text: &str, host: &str, expected: bool| {
            assert_eq!(pattern(text).matches(host), expected, "{text} {host}");
        };
        check("chat.example.com", "chat.example.com", true);
        check("Chat.example.com", "CHAT.example.com:8443", true);
        check("chat.example.com", "chat.example.com.:443", true);
        check("chat.example.com:443", "chat.example.com:443", true);
        check("chat.example.com:443", "chat.example.com", false);
        check("chat.example.com", "chat.example.com.evil.test", false);
        check("chat.example.com", "evilchat.example.com", false);
        check("*.example.com", "a.b.example.com:1", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", ".example.com", false);
        check("[::1]", "[::1]:8080", true);
        check("[::1]:8080", "[::1]:8081", false);
        check("127.0.0.1", "127.0.0.1:80", true);
        for text in ["", "*", "*.", "a b", "a/b", "https://a", "u@a", "a.*.b"] {
            assert!(HostPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_loopback_listener_without_a_list_answers_for_names_of_the_loopback_interface_alone() {
        let hosts = AllowedHosts::internal(SocketAddr::from(([127, 0, 0, 1], 8081)), &[]);
        for host in [
            "localhost",
            "LOCALHOST:8081",
            "localhost.:1",
            "a.localhost",
            "chat.execute-api.localhost:8081",
            "127.0.0.1:8081",
            "127.9.9.9",
            "[::1]:8081",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "evil.test",
            "evil.test:8081",
            "localhost.evil.test",
            "notlocalhost",
            ".localhost",
            "127.0.0.1.evil.test",
            "10.0.0.1",
            "[2001:db8::1]:8081",
            "169.254.169.254",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
        let listed = AllowedHosts::internal(SocketAddr::from(([127, 0, 0, 1], 8081)), &[pattern("metrics.test")]);
        assert!(listed.allow("metrics.test") && !listed.allow("localhost"));
        for address in ["0.0.0.0:8081", "10.0.0.7:8081", "[::]:8081"] {
            assert!(AllowedHosts::internal(address.parse().expect("an address"), &[]).allow("10.0.0.7"), "{address}");
        }
    }
}
