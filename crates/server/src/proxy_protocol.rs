//! The PROXY protocol, versions 1 and 2: a header in which a load balancer names the real ends of a connection, before
//! the client's first byte.
//!
//! Source: HAProxy, "The PROXY protocol, Versions 1 & 2".

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The beginning of every header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Length of the fixed part of version 2, in bytes: signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// Largest header of version 2 that is read, in bytes: room for the addresses and for what real load balancers add.
const V2_MAX_BYTES: usize = V2_FIXED_BYTES + 2048;

/// Longest and shortest line of version 1, in bytes, with the CRLF.
const V1_MAX_BYTES: usize = 107;
const V1_MIN_BYTES: usize = 15;

/// Type of the TLV about the client's TLS, and the flag in it that says that the client spoke TLS to the load balancer.
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 1;

/// The content of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client and the address that it connected to; `None` if the load balancer speaks for itself (a health check).
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// True if the client spoke TLS to the load balancer.
    pub secure: bool,
}

/// The result of looking for a header in the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header, and its length in bytes.
    Header(ProxyHeader, usize),
    /// The header is not complete. Holds the least number of bytes that are missing.
    Incomplete(usize),
}

/// The reason why a connection does not begin with a valid header.
#[derive(Debug, Error)]
pub enum ProxyHeaderError {
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
    #[error("the connection ended within its PROXY header")]
    Truncated(#[source] io::Error),
}

/// Reads the header of a connection, and not a byte more.
///
/// # Errors
/// Returns a [`ProxyHeaderError`] if there is no header, if it is malformed, or if the connection ends before its end.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut bytes = Vec::with_capacity(V1_MAX_BYTES);
    loop {
        match parse(&bytes)? {
            Parsed::Header(header, _) => return Ok(header),
            Parsed::Incomplete(more) => {
                let known = bytes.len();
                bytes.resize(known + more, 0);
                stream.read_exact(&mut bytes[known..]).await.map_err(ProxyHeaderError::Truncated)?;
            }
        }
    }
}

/// Looks for a header at the beginning of `bytes`. Never asks for more bytes than belong to the header.
///
/// # Errors
/// Returns a [`ProxyHeaderError`] if `bytes` cannot become a header, whatever follows them.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    let shared = bytes.len().min(SIGNATURE.len());
    if bytes.len() < V1_MIN_BYTES {
        let begins = |text: &[u8]| bytes.iter().zip(text).all(|(a, b)| a == b);
        return match begins(b"PROXY ") || bytes[..shared] == SIGNATURE[..shared] {
            true => Ok(Parsed::Incomplete(V1_MIN_BYTES - bytes.len())),
            false => Err(ProxyHeaderError::Missing),
        };
    }
    if bytes.starts_with(SIGNATURE) {
        version_2(bytes)
    } else if bytes.starts_with(b"PROXY ") {
        version_1(bytes)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

fn version_1(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    let malformed = ProxyHeaderError::Malformed;
    let Some(end) = bytes.iter().take(V1_MAX_BYTES).position(|byte| *byte == b'\n') else {
        return match bytes.len() < V1_MAX_BYTES {
            true => Ok(Parsed::Incomplete(1)),
            false => Err(malformed("the line is too long")),
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(malformed("the line does not end with CRLF"))?;
    let line = str::from_utf8(line).map_err(|_| malformed("the line is not ASCII"))?;
    let fields: Vec<&str> = line.split(' ').collect();
    let addresses = match fields.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |ip: &str, port: &str| {
                let ip = match *family {
                    "TCP4" => ip.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                    _ => ip.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                };
                let is_plain =
                    port.bytes().all(|byte| byte.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
                let port = port.parse::<u16>().ok().filter(|_| is_plain);
                Some(SocketAddr::new(ip?, port?))
            };
            let addresses = address(source, source_port).zip(address(destination, destination_port));
            Some(addresses.ok_or(malformed("the addresses do not parse"))?)
        }
        _ => return Err(malformed("the line has the wrong fields")),
    };
    Ok(Parsed::Header(ProxyHeader { addresses, secure: false }, end + 1))
}

fn version_2(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    let malformed = ProxyHeaderError::Malformed;
    let &[version_and_command, family, high, low] = &bytes[SIGNATURE.len()..bytes.len().min(V2_FIXED_BYTES)] else {
        return Ok(Parsed::Incomplete(V2_FIXED_BYTES - bytes.len()));
    };
    if version_and_command >> 4 != 2 {
        return Err(malformed("the version is not 2"));
    }
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX_BYTES {
        return Err(malformed("the header is too long"));
    }
    if bytes.len() < length {
        return Ok(Parsed::Incomplete(length - bytes.len()));
    }
    let payload = &bytes[V2_FIXED_BYTES..length];
    let (addresses, values) = match (version_and_command & 0xf, family) {
        // LOCAL: the rest of the header does not matter.
        (0, _) => return Ok(Parsed::Header(ProxyHeader { addresses: None, secure: false }, length)),
        (1, 0x11) => {
            let (addresses, values) = payload.split_at_checked(12).ok_or(malformed("the addresses are cut short"))?;
            (Some(addresses_v4(addresses)), values)
        }
        (1, 0x21) => {
            let (addresses, values) = payload.split_at_checked(36).ok_or(malformed("the addresses are cut short"))?;
            (Some(addresses_v6(addresses)), values)
        }
        (1, 0x00) => (None, &payload[..0]),
        (1, _) => return Err(malformed("the family is not TCP over IPv4 or IPv6")),
        _ => return Err(malformed("the command is unknown")),
    };
    let secure = is_secure(values)?;
    Ok(Parsed::Header(ProxyHeader { addresses, secure }, length))
}

/// Reads both addresses, then both ports, from 12 bytes.
fn addresses_v4(bytes: &[u8]) -> (SocketAddr, SocketAddr) {
    let ip = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    (SocketAddr::from((ip(0), port(bytes, 8))), SocketAddr::from((ip(4), port(bytes, 10))))
}

/// Reads both addresses, then both ports, from 36 bytes.
fn addresses_v6(bytes: &[u8]) -> (SocketAddr, SocketAddr) {
    let ip = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    (SocketAddr::from((ip(0), port(bytes, 32))), SocketAddr::from((ip(16), port(bytes, 34))))
}

fn port(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Returns true if the TLVs after the addresses say that the client spoke TLS.
fn is_secure(mut values: &[u8]) -> Result<bool, ProxyHeaderError> {
    let cut = ProxyHeaderError::Malformed("a value is cut short");
    let mut secure = false;
    while let [kind, high, low, rest @ ..] = values {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, rest)) = rest.split_at_checked(length) else { return Err(cut) };
        if *kind == TYPE_SSL {
            secure = value.first().is_some_and(|flags| flags & CLIENT_SSL != 0);
        }
        values = rest;
    }
    if values.is_empty() { Ok(secure) } else { Err(cut) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        [SIGNATURE.as_slice(), &[0x20 | command, family], &length, payload].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];

    /// Headers: the bytes, source and destination, and true if the client spoke TLS.
    type Sample = (Vec<u8>, Option<(&'static str, &'static str)>, bool);

    fn samples() -> Vec<Sample> {
        let v6 = [
            &Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets()[..],
            &Ipv6Addr::LOCALHOST.octets(),
            &[0, 1, 0, 2],
        ]
        .concat();
        let tls = [&V4[..], &[0x03, 0, 4, 1, 2, 3, 4, TYPE_SSL, 0, 5, CLIENT_SSL, 0, 0, 0, 0]].concat();
        let v4 = Some(("203.0.113.7:12345", "10.0.0.1:443"));
        vec![
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 443\r\n".to_vec(), v4, false),
            (b"PROXY TCP6 2001:db8::7 ::1 12345 443\r\n".to_vec(), Some(("[2001:db8::7]:12345", "[::1]:443")), false),
            (b"PROXY UNKNOWN\r\n".to_vec(), None, false),
            (b"PROXY UNKNOWN ff::1 ff::1 1 2\r\n".to_vec(), None, false),
            (v2(1, 0x11, &V4), v4, false),
            (v2(1, 0x21, &v6), Some(("[2001:db8::7]:1", "[::1]:2")), false),
            (v2(1, 0x11, &tls), v4, true),
            (v2(0, 0x11, &V4), None, false),
            (v2(0, 0, &[]), None, false),
            (v2(1, 0, b"anything"), None, false),
        ]
    }

    #[test]
    fn both_versions_are_read() {
        for (bytes, addresses, secure) in samples() {
            let addresses = addresses.map(|(from, to)| (from.parse().expect("ok"), to.parse().expect("ok")));
            let expected = Parsed::Header(ProxyHeader { addresses, secure }, bytes.len());
            assert_eq!(parse(&bytes).expect("a header"), expected, "{bytes:?}");
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&followed).expect("a header"), expected, "{bytes:?}");
        }
    }

    #[test]
    fn truncated_at_any_byte_it_asks_for_what_belongs_to_it() {
        for (bytes, ..) in samples() {
            for length in 0..bytes.len() {
                match parse(&bytes[..length]).expect("it may go on") {
                    Parsed::Incomplete(more) => assert!((1..=bytes.len() - length).contains(&more), "{length}"),
                    Parsed::Header(..) => panic!("a header of {length} bytes of {bytes:?}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn reading_leaves_the_clients_first_byte_and_minds_a_truncated_header() {
        for (bytes, addresses, _) in samples() {
            let followed = [&bytes[..], b"G"].concat();
            let mut stream = followed.as_slice();
            let header = read(&mut stream).await.expect("a header");
            assert_eq!((header.addresses.is_some(), stream), (addresses.is_some(), b"G".as_slice()));
            for length in 0..bytes.len() {
                assert!(matches!(read(&mut &bytes[..length]).await, Err(ProxyHeaderError::Truncated(_))), "{length}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let check = |bytes: &[u8]| assert!(parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        check(b"G");
        check(b"GET / HTTP/1.1\r\n");
        check(b"PROXY TCP4 203.0.113.7 10.0.0.1 12345\r\n");
        check(b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 443 \r\n");
        check(b"PROXY TCP4 203.0.113.07 10.0.0.1 12345 443\r\n");
        check(b"PROXY TCP4 203.0.113.7 10.0.0.1 012345 443\r\n");
        check(b"PROXY TCP4 203.0.113.7 10.0.0.1 +1 443\r\n");
        check(b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n");
        check(b"PROXY TCP4 ::1 ::1 1 443\r\n");
        check(b"PROXY TCP6 10.0.0.1 10.0.0.1 1 443\r\n");
        check(b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 443\n");
        check(b"PROXY UDP4 203.0.113.7 10.0.0.1 12345 443\r\n");
        check(&[b"PROXY UNKNOWN ".as_slice(), &[b'a'; 100]].concat());
        check(&v2(2, 0x11, &V4));
        check(&v2(1, 0x12, &V4));
        check(&v2(1, 0x31, &[0; 216]));
        check(&v2(1, 0x11, &V4[..11]));
        check(&v2(1, 0x11, &[&V4[..], &[1, 0]].concat()));
        check(&v2(1, 0x11, &[&V4[..], &[1, 0, 9, 0]].concat()));
        check(&v2(1, 0x11, &[0; 2049]));
        let mut version = v2(1, 0x11, &V4);
        version[12] = 0x31;
        check(&version);
    }
}
