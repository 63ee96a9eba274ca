use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::TrustedProxy;
use super::entrance::Peer;
use tidegate_integration::{X_FORWARDED_FOR, X_FORWARDED_PORT, X_FORWARDED_PROTO, write_forwarded};
use tidegate_telemetry::Sender;

/// The client that sent a request, as far as headers can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientAddress {
    pub(super) source_ip: IpAddr,
    /// True if the client spoke TLS to the gateway or to the proxy that accepted its connection.
    pub(super) secure: bool,
    /// The port that the client connected to.
    pub(super) port: u16,
    /// The addresses that the request passed through, the client's first.
    pub(super) forwarded_for: String,
}

impl ClientAddress {
    /// Follows `X-Forwarded-For` from the peer outwards for as long as each hop is a trusted proxy. If the peer is not
    /// a trusted proxy, the peer is the client and its headers are ignored.
    pub(super) fn find(peer: &Peer, headers: &HeaderMap, trusted: &[TrustedProxy]) -> Self {
        let peer_ip = peer.remote.ip().to_canonical();
        let local_port = peer.local.port();
        if !is_trusted(peer_ip, trusted) {
            let forwarded_for = peer_ip.to_string();
            return ClientAddress { source_ip: peer_ip, secure: peer.secure, port: local_port, forwarded_for };
        }
        let mut way = vec![peer_ip];
        let all = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = all.flat_map(|value| value.split(',')).map(str::trim).collect();
        for hop in hops.into_iter().rev() {
            let Some(ip) = parse_hop(hop) else { break };
            way.push(ip);
            if !is_trusted(ip, trusted) {
                break;
            }
        }
        let forwarded_for: Vec<String> = way.iter().rev().map(IpAddr::to_string).collect();
        let secure = last_value(headers, &X_FORWARDED_PROTO)
            .map_or(peer.secure, |proto| proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss"));
        let port = last_value(headers, &X_FORWARDED_PORT).and_then(|port| port.parse().ok());
        ClientAddress {
            source_ip: way.last().copied().unwrap_or(peer_ip),
            secure,
            port: port.unwrap_or(if secure && !peer.secure { 443 } else { local_port }),
            forwarded_for: forwarded_for.join(", "),
        }
    }

    /// Writes this client into the headers that a backend sees, in place of what the client sent.
    pub(super) fn write_to(&self, headers: &mut HeaderMap) {
        write_forwarded(headers, &self.forwarded_for, self.port, self.secure);
    }
}

/// Returns how far the sender of a request is trusted to continue a trace.
pub(super) fn sender(peer: &Peer, trusted: &[TrustedProxy]) -> Sender {
    if is_trusted(peer.remote.ip().to_canonical(), trusted) { Sender::Trusted } else { Sender::Stranger }
}

pub(super) fn is_trusted(ip: IpAddr, trusted: &[TrustedProxy]) -> bool {
    trusted.iter().any(|TrustedProxy(network)| IpNet::contains(network, &ip))
}

/// Parses an address with or without a port: `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::1`, `[2001:db8::1]:4711`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

/// Returns the value that the nearest proxy wrote.
fn last_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

    #[test]
    fn tls_to_the_gateway_itself_counts_unless_a_proxy_knows_better() {
        let trusted = ["10.0.0.0/8"].map(|network| TrustedProxy(network.parse().unwrap()));
        let check = |ip: &str, proto: Option<&'static str>, expected: (bool, u16)| {
            let mut headers = HeaderMap::new();
            headers.extend(proto.map(|proto| (X_FORWARDED_PROTO, HeaderValue::from_static(proto))));
            let peer = Peer::new(SocketAddr::new(ip.parse().unwrap(), 50_000), LOCAL);
            let found = ClientAddress::find(&Peer { secure: true, ..peer }, &headers, &trusted);
            assert_eq!((found.secure, found.port), expected, "{ip} {proto:?}");
        };
        check("198.51.100.1", None, (true, 8080));
        check("198.51.100.1", Some("http"), (true, 8080));
        check("10.0.0.1", None, (true, 8080));
        check("10.0.0.1", Some("https"), (true, 8080));
        check("10.0.0.1", Some("http"), (false, 8080));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|network| TrustedProxy(network.parse().unwrap()));
        let check =
            |peer: &str, forwarded: &[&'static str], proto: Option<&'static str>, expected: (&str, bool, u16, &str)| {
                let mut headers = HeaderMap::new();
                for value in forwarded {
                    headers.append(X_FORWARDED_FOR, HeaderValue::from_static(value));
                }
                if let Some(proto) = proto {
                    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
                }
                let peer = SocketAddr::new(peer.parse().unwrap(), 50_000);
                let found = ClientAddress::find(&Peer::new(peer, LOCAL), &headers, &trusted);
                let (source, secure, port, way) = expected;
                assert_eq!(found.source_ip, source.parse::<IpAddr>().unwrap(), "{forwarded:?}");
                assert_eq!((found.secure, found.port, &*found.forwarded_for), (secure, port, way), "{forwarded:?}");
            };
        check("198.51.100.1", &[], None, ("198.51.100.1", false, 8080, "198.51.100.1"));
        check("198.51.100.1", &["203.0.113.7"], Some("https"), ("198.51.100.1", false, 8080, "198.51.100.1"));
        check("10.0.0.1", &["203.0.113.7"], Some("https"), ("203.0.113.7", true, 443, "203.0.113.7, 10.0.0.1"));
        check("10.0.0.1", &["203.0.113.7"], None, ("203.0.113.7", false, 8080, "203.0.113.7, 10.0.0.1"));
        check("10.0.0.1", &[], None, ("10.0.0.1", false, 8080, "10.0.0.1"));
        check(
            "10.0.0.1",
            &["1.2.3.4, 203.0.113.7, 10.9.9.9"],
            None,
            ("203.0.113.7", false, 8080, "203.0.113.7, 10.9.9.9, 10.0.0.1"),
        );
        check("10.0.0.1", &["1.2.3.4", "203.0.113.7"], None, ("203.0.113.7", false, 8080, "203.0.113.7, 10.0.0.1"));
        check("10.0.0.1", &["rubbish"], None, ("10.0.0.1", false, 8080, "10.0.0.1"));
        check("10.0.0.1", &["203.0.113.7, rubbish"], None, ("10.0.0.1", false, 8080, "10.0.0.1"));
        check("::ffff:10.0.0.1", &["203.0.113.7:4711"], None, ("203.0.113.7", false, 8080, "203.0.113.7, 10.0.0.1"));
        check("2001:db8::1", &["[2001:4860::8]:99"], None, ("2001:4860::8", false, 8080, "2001:4860::8, 2001:db8::1"));
    }
}
