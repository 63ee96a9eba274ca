//! Egress rules: the addresses that backends may have. They are checked after name resolution for every connection,
//! since a name may resolve to another address the next time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The private networks that backends may be in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EgressSettings {
    /// Networks (`10.20.0.0/16`) or addresses. Without a list, private addresses are reached if the configuration names
    /// them literally: as an IP address, or by a name that can only be a private one (a single label such as `backend`,
    /// or one under `localhost`, `local`, `internal`, `lan`, `home.arpa`, `test`). With a list, only the private
    /// addresses on it are reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    pub allow: Option<Vec<Network>>,
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Network).map_err(|_| format!("`{text}` is neither a network (`10.0.0.0/8`) nor an IP address"))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.0.to_string()
    }
}

/// The reason why an address is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    #[error("the address is link-local or a cloud's metadata service, which is never called")]
    Metadata,
    #[error("the address is not that of a single host")]
    NoHost,
    #[error("the address is private; add its network to `egress.allow` to allow it")]
    Private,
}

/// Metadata services outside the link-local networks: Alibaba, Oracle, Azure's host service.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// Prefix of the services that AWS gives to an instance: metadata, credentials of EKS, time, names.
const METADATA_V6_AWS: [u16; 2] = [0xfd00, 0x0ec2];

/// Metadata services of other clouds at unique local addresses: Google, Oracle, Akamai, Scaleway, Alibaba.
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200),
];

/// Last labels of names that are never public.
const PRIVATE_NAMES: [&str; 6] = ["localhost", "local", "internal", "lan", "home.arpa", "test"];

impl EgressSettings {
    /// Checks that `host`, from a URI, may be called at `address`.
    ///
    /// # Errors
    /// Returns `Metadata` or `NoHost` for addresses that are never called, and `Private` if the address is private and
    /// not allowed.
    pub(super) fn check(&self, host: &str, address: IpAddr) -> Result<(), EgressError> {
        if let IpAddr::V6(ip) = address
            && may_hold(ip).any(|ip| kind_v4(ip) == Kind::Metadata)
        {
            return Err(EgressError::Metadata);
        }
        // An IPv6 address that stands for an IPv4 address is checked as both.
        let candidates = [Some(address.to_canonical()), embedded(address).map(IpAddr::V4)];
        for address in candidates.into_iter().flatten() {
            match kind(address) {
                Kind::Public => {}
                Kind::Metadata => return Err(EgressError::Metadata),
                Kind::NoHost => return Err(EgressError::NoHost),
                Kind::Private if self.allows(host, address) => {}
                Kind::Private => return Err(EgressError::Private),
            }
        }
        Ok(())
    }

    fn allows(&self, host: &str, address: IpAddr) -> bool {
        match &self.allow {
            Some(networks) => networks.iter().any(|Network(network)| network.contains(&address)),
            None => host.parse::<IpAddr>().is_ok() || is_private_name(host),
        }
    }
}

fn is_private_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_below = |parent: &str| host.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !host.contains('.') || PRIVATE_NAMES.into_iter().any(is_below)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Metadata,
    NoHost,
}

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(ip) => kind_v4(ip),
        IpAddr::V6(ip) => kind_v6(ip),
    }
}

fn kind_v4(ip: Ipv4Addr) -> Kind {
    let [a, b, ..] = ip.octets();
    if ip.is_link_local() || METADATA_V4.contains(&ip) {
        Kind::Metadata
    } else if ip.is_multicast() || a >= 240 {
        Kind::NoHost
    } else if ip.is_private()
        || ip.is_loopback()
        || a == 0
        || (a == 100 && b & 0xc0 == 64)
        || (a == 198 && b & 0xfe == 18)
        || ip.octets()[..3] == [192, 0, 0]
        || ip.is_documentation()
    {
        Kind::Private
    } else {
        Kind::Public
    }
}

fn kind_v6(ip: Ipv6Addr) -> Kind {
    let segments = ip.segments();
    if ip.is_unicast_link_local() || segments[..2] == METADATA_V6_AWS || METADATA_V6.contains(&ip) {
        Kind::Metadata
    } else if ip.is_multicast() {
        Kind::NoHost
    } else if ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || segments[0] & 0xffc0 == 0xfec0 {
        Kind::Private
    } else {
        Kind::Public
    }
}

/// Returns the IPv4 address within an IPv6 address: mapped, compatible, NAT64 (also the local-use prefix), 6to4,
/// Teredo.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = address else { return None };
    let octets = ip.octets();
    let at = |index: usize| Ipv4Addr::new(octets[index], octets[index + 1], octets[index + 2], octets[index + 3]);
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(at(12)),
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => Some(at(12)),
        [0, 0, 0, 0, 0xffff, 0, ..] => Some(at(12)),
        [0x2002, ..] => Some(at(2)),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!at(12).to_bits())),
        _ => None,
    }
}

/// Returns the IPv4 addresses that an IPv6 address may lead to in some network: those within the local-use prefix of
/// NAT64 (`64:ff9b:1::/48`), whose length is the network's own choice, the server of Teredo, and ISATAP's behind any
/// prefix. The bytes may also be there by chance, so only a metadata service among them is refused.
fn may_hold(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = ip.octets();
    let at = move |indices: [usize; 4]| Ipv4Addr::from(indices.map(|index| octets[index]));
    let found = match ip.segments() {
        // RFC 6052, section 2.2: byte 8 is always skipped.
        [0x64, 0xff9b, 1, ..] => vec![at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12])],
        [0x2001, 0, ..] => vec![at([4, 5, 6, 7])],
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![at([12, 13, 14, 15])],
        _ => Vec::new(),
    };
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow: Option<&[&str]>) -> EgressSettings {
        let network = |text: &&str| Network::try_from((*text).to_owned()).expect("a network");
        EgressSettings { allow: allow.map(|allow| allow.iter().map(network).collect()) }
    }

    #[track_caller]
    fn check(settings: &EgressSettings, host: &str, address: &str, expected: Result<(), EgressError>) {
        assert_eq!(settings.check(host, address.parse().expect("an address")), expected, "{host} {address}");
    }

    #[test]
    fn metadata_services_are_never_called_however_they_are_written() {
        for allow in [None, Some(&["0.0.0.0/0", "::/0"][..])] {
            let settings = settings(allow);
            for address in [
                "169.254.169.254",
                "169.254.170.2",
                "169.254.0.1",
                "100.100.100.200",
                "192.0.0.192",
                "168.63.129.16",
                "fe80::1",
                "fe80::a9fe:a9fe",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd20:ce::254",
                "fd00:c1::a9fe:a9fe",
                "fd00:a9fe:a9fe::1",
                "fd00:42::42",
                "fd00:100::100:200",
                "::ffff:100.100.100.200",
                "::ffff:168.63.129.16",
                "64:ff9b::6464:64c8",
                "64:ff9b::a9fe:aa02",
                "64:ff9b:1:a9fe:a9:fe00::",
                "64:ff9b:1:a9:fe:a9fe::",
                "64:ff9b:1:0:a9:fea9:fe00:0",
                "2002:6464:64c8::1",
                "2002:a83f:8110::1",
                "2001:0:a9fe:a9fe::",
                "2001:db8::5efe:a9fe:a9fe",
                "2001:db8::200:5efe:a9fe:a9fe",
                "::ffff:169.254.169.254",
                "::169.254.169.254",
                "::ffff:0:169.254.169.254",
                "64:ff9b::a9fe:a9fe",
                "64:ff9b:1::a9fe:a9fe",
                "2002:a9fe:a9fe::1",
                "2001:0:1:2:3:4:5601:5601",
            ] {
                check(&settings, address, address, Err(EgressError::Metadata));
            }
            check(&settings, "224.0.0.1", "224.0.0.1", Err(EgressError::NoHost));
            check(&settings, "255.255.255.255", "255.255.255.255", Err(EgressError::NoHost));
            check(&settings, "ff02::1", "ff02::1", Err(EgressError::NoHost));
        }
    }

    #[test]
    fn without_a_list_private_addresses_must_be_meant() {
        let settings = settings(None);
        for host in ["backend", "localhost", "db.internal", "a.svc.cluster.local", "Backend.LAN.", "127.0.0.1", "::1"] {
            check(&settings, host, "127.0.0.1", Ok(()));
            check(&settings, host, "10.1.2.3", Ok(()));
            check(&settings, host, "fd12::1", Ok(()));
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "::",
            "fd12::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "fec0::1",
            "198.18.0.1",
        ] {
            check(&settings, "api.example.com", address, Err(EgressError::Private));
            check(&settings, "local.example.com", address, Err(EgressError::Private));
        }
        check(&settings, "api.example.com", "8.8.8.8", Ok(()));
        check(&settings, "api.example.com", "2606:4700::1", Ok(()));
        check(&settings, "api.example.com", "64:ff9b:1::808:808", Ok(()));
        check(&settings, "backend.internal", "fd20:ce::253", Ok(()));
        check(&settings, "api.example.com", "172.32.0.1", Ok(()));
    }

    #[test]
    fn with_a_list_only_what_is_on_it() {
        let settings = settings(Some(&["10.20.0.0/16", "fd12::1"]));
        check(&settings, "api.example.com", "10.20.1.1", Ok(()));
        check(&settings, "api.example.com", "::ffff:10.20.1.1", Ok(()));
        check(&settings, "api.example.com", "fd12::1", Ok(()));
        check(&settings, "api.example.com", "8.8.8.8", Ok(()));
        check(&settings, "10.21.0.1", "10.21.0.1", Err(EgressError::Private));
        check(&settings, "localhost", "127.0.0.1", Err(EgressError::Private));
    }
}
