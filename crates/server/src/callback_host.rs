use std::net::SocketAddr;

use super::client_address::ClientAddress;
use super::entrance::Peer;
use super::hosts::{AllowedHosts, split_port};
use tidegate_gateway::deployment::Deployments;

/// The host with which a connection's callback URLs begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallbackHost {
    /// The host, with its port if it has one.
    pub(super) host: String,
    /// True if the URLs begin with `https`.
    pub(super) secure: bool,
}

impl CallbackHost {
    /// Uses the Host that a client sent only if it is a name of this gateway: one of `allowedHosts`, a domain, an API's
    /// own name at the port of the listener, or `localhost` for a listener on the loopback interface. With any other
    /// Host a client could choose where backends post to, so the URLs begin with the address that the client connected
    /// to.
    pub(super) fn find(
        hosts: &AllowedHosts,
        deployments: &Deployments,
        peer: &Peer,
        client: &ClientAddress,
        host: &str,
    ) -> Self {
        let own = SocketAddr::new(peer.local.ip().to_canonical(), peer.local.port());
        let (name, port) = split_port(host);
        let port = Port::parse(port);
        let is_own_port = port.number(peer.secure) == Some(own.port());
        let is_address = || host.parse() == Ok(own);
        let is_loopback = || is_own_port && own.ip().is_loopback() && name.eq_ignore_ascii_case("localhost");
        let is_api = || is_own_port && deployments.names_api(host);
        let is_domain = || deployments.has_domain(host) && port.is_of_domain([own.port(), client.port]);
        if hosts.list(host) || is_address() || is_loopback() || is_api() || is_domain() {
            CallbackHost { host: host.to_owned(), secure: client.secure }
        } else {
            CallbackHost { host: own.to_string(), secure: peer.secure }
        }
    }
}

/// The port in a Host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// No port is written: the scheme's default applies.
    Default,
    Number(u16),
    Invalid,
}

impl Port {
    fn parse(text: Option<&str>) -> Self {
        match text.map(str::parse) {
            None => Port::Default,
            Some(Ok(number)) => Port::Number(number),
            Some(Err(_)) => Port::Invalid,
        }
    }

    fn number(self, secure: bool) -> Option<u16> {
        match self {
            Port::Default => Some(if secure { 443 } else { 80 }),
            Port::Number(number) => Some(number),
            Port::Invalid => None,
        }
    }

    /// Returns true if this may be the port of a domain, which is configured without a port. Any other port is the
    /// client's choice and could lead to another service on the same host.
    fn is_of_domain(self, known: [u16; 2]) -> bool {
        match self {
            Port::Default | Port::Number(80 | 443) => true,
            Port::Number(number) => known.contains(&number),
            Port::Invalid => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::{HostPattern, TrustedProxy};

    #[test]
    fn only_own_names_are_taken_from_a_client() {
        let check = |local: &str, listed: &[&str], tls: bool, host: &str, expected: (&str, bool)| {
            let peer = Peer::new("198.51.100.1:50000".parse().expect("an address"), local.parse().expect("an address"));
            let peer = Peer { secure: tls, ..peer };
            let client = ClientAddress::find(&peer, &HeaderMap::new(), &[] as &[TrustedProxy]);
            let patterns = listed.iter().map(|text| HostPattern::try_from((*text).to_owned()).expect("a pattern"));
            let hosts = AllowedHosts::public(&patterns.collect::<Vec<_>>());
            let found = CallbackHost::find(&hosts, &Deployments::default(), &peer, &client, host);
            assert_eq!((&*found.host, found.secure), expected, "{local} {listed:?} {host}");
        };
        check("10.0.0.7:8080", &[], false, "evil.test", ("10.0.0.7:8080", false));
        check("10.0.0.7:8080", &[], false, "10.0.0.7:8080", ("10.0.0.7:8080", false));
        // On a machine with a network, `localhost` would be the backend's own machine.
        check("10.0.0.7:8080", &[], false, "localhost:8080", ("10.0.0.7:8080", false));
        check("10.0.0.7:8080", &["a.test"], false, "A.test:9", ("A.test:9", false));
        check("10.0.0.7:8443", &[], true, "evil.test", ("10.0.0.7:8443", true));
        check("10.0.0.7:8443", &["a.test"], true, "a.test", ("a.test", true));
        check("127.0.0.1:443", &[], true, "localhost", ("localhost", true));
        check("127.0.0.1:80", &[], false, "localhost", ("localhost", false));
        check("127.0.0.1:80", &[], false, "localhost:", ("127.0.0.1:80", false));
        check("127.0.0.1:80", &[], false, "localhost:99999", ("127.0.0.1:80", false));
        check("[::1]:8080", &[], false, "[::1]:8080", ("[::1]:8080", false));
        check("[::1]:8080", &[], false, "evil.test:8080", ("[::1]:8080", false));
        check("[::ffff:10.0.0.7]:8080", &[], false, "evil.test", ("10.0.0.7:8080", false));
        check("[fe80::1%2]:8080", &[], false, "evil.test", ("[fe80::1]:8080", false));
    }
}
