//! Questions to Linux's `sock_diag` (its manual page, section 7) about one TCP connection. The kernel gives the answer
//! of `ss -ti`, for exactly this connection and without a walk through all. A question needs no privilege and no
//! `unsafe`, and the kernel answers it within the call that sends it.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, Once};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::{Ends, Traffic};
use tidegate_core::lock::lock;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const IPPROTO_TCP: u8 = 6;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const TCP_LISTEN: u8 = 10;

/// Sizes of `nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`, and the offsets of `idiag_state` and `idiag_wqueue` in
/// the last one.
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
const MESSAGE_BYTES: usize = 72;
const STATE_AT: usize = 1;
const WRITE_QUEUE_AT: usize = 60;

/// Offsets of `tcpi_bytes_acked` and `tcpi_bytes_received` in `tcp_info`, since Linux 4.1.
const BYTES_ACKED_AT: usize = 120;
const BYTES_RECEIVED_AT: usize = 128;

/// Size of the buffer for an answer; answers have about 500 bytes today.
const ANSWER_MAX_BYTES: usize = 4096;

/// Most answers to earlier questions that are skipped, if something went wrong with those.
const SKIPPED_MAX: usize = 4;

/// Most questions in a row that may find no connection before any was answered. After that this kernel is assumed not
/// to support them (it lacks `tcp_diag`), and is not made to search for a module again.
const UNKNOWN_MAX: u32 = 4;

/// The socket for all questions, so that none fails for want of a file descriptor once one has been asked. The lock is
/// held for one question and its answer: some microseconds.
static ASKING: Mutex<Asking> = Mutex::new(Asking { socket: None, sequence: 0, unknown: Some(0) });

/// A guard that lets one warning through: what forbids the first question forbids all.
static WARNING: Once = Once::new();

struct Asking {
    socket: Option<Socket>,
    sequence: u32,
    /// Number of questions that found no connection; `None` once one was answered.
    unknown: Option<u32>,
}

/// Asks the kernel how far the bytes of a connection have come. Returns `None` if there is no such connection, or if
/// the kernel does not answer.
pub(super) fn traffic(ends: &Ends) -> Option<Traffic> {
    let asked = lock(&ASKING).ask(ends);
    asked.unwrap_or_else(|error| {
        WARNING.call_once(|| {
            warn!(
                %error,
                "could not ask the kernel how far a connection's bytes have come, so clients and nodes that read slowly may \
                 be closed as dead; allow this process to open AF_NETLINK sockets, and load the kernel module tcp_diag"
            );
        });
        None
    })
}

impl Asking {
    fn ask(&mut self, ends: &Ends) -> io::Result<Option<Traffic>> {
        if self.unknown == Some(UNKNOWN_MAX) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let traffic = self.exchange(ends)?;
        self.unknown = self.unknown.filter(|_| traffic.is_none()).map(|unknown| unknown + 1);
        Ok(traffic)
    }

    fn exchange(&mut self, ends: &Ends) -> io::Result<Option<Traffic>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket =
                    Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
                socket.set_nonblocking(true)?;
                socket
            }
        };
        self.sequence = self.sequence.wrapping_add(1);
        socket.send(&question(ends, self.sequence))?;
        let mut answer = [0; ANSWER_MAX_BYTES];
        for _ in 0..=SKIPPED_MAX {
            let length = (&socket).read(&mut answer)?;
            if let Some(answered) = read_answer(&answer[..length], self.sequence) {
                // A socket that failed is not used again.
                self.socket = Some(socket);
                return answered;
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Returns the bytes of a question for the `tcp_info` of one connection.
fn question(ends: &Ends, sequence: u32) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&(REQUEST_BYTES as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&0_u32.to_ne_bytes());

    let (family, interface) = match ends.remote {
        SocketAddr::V4(_) => (AF_INET, 0),
        SocketAddr::V6(remote) => (AF_INET6, remote.scope_id()),
    };
    let all_states = u32::MAX;
    put(&[family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    put(&all_states.to_ne_bytes());
    put(&ends.local.port().to_be_bytes());
    put(&ends.remote.port().to_be_bytes());
    put(&address(ends.local.ip()));
    put(&address(ends.remote.ip()));
    put(&interface.to_ne_bytes());
    let no_cookie = [u8::MAX; 8];
    put(&no_cookie);
    bytes
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Reads an answer. Returns `None` if it belongs to another question.
fn read_answer(answer: &[u8], sequence: u32) -> Option<io::Result<Option<Traffic>>> {
    if u32_at(answer, 8)? != sequence {
        return None;
    }
    let length = usize::try_from(u32_at(answer, 0)?).ok()?.min(answer.len());
    let message = answer.get(HEADER_BYTES..length)?;
    if u16_at(answer, 4)? == NLMSG_ERROR {
        let error = i32::from_ne_bytes(message.get(..4)?.try_into().ok()?).saturating_neg();
        let error = io::Error::from_raw_os_error(error);
        // The connection is gone.
        return Some(if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) });
    }
    Some(Ok(read_message(message)))
}

fn read_message(message: &[u8]) -> Option<Traffic> {
    if *message.get(STATE_AT)? == TCP_LISTEN {
        // The connection is gone, and a listener has its port.
        return None;
    }
    let unacknowledged = u32_at(message, WRITE_QUEUE_AT)?.into();
    let mut attributes = message.get(MESSAGE_BYTES..)?;
    loop {
        let (length, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)?);
        let info = attributes.get(4..length)?;
        if kind == INET_DIAG_INFO {
            let (acknowledged, received) = (u64_at(info, BYTES_ACKED_AT)?, u64_at(info, BYTES_RECEIVED_AT)?);
            return Some(Traffic { acknowledged, unacknowledged, received });
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::transport::Connection as _;

    /// Returns both ends of a TCP connection.
    async fn pair(listen: SocketAddr, dial: IpAddr) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).await.unwrap();
        let dial = SocketAddr::new(dial, listener.local_addr().unwrap().port());
        let (dialled, accepted) = tokio::join!(TcpStream::connect(dial), listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    /// Waits until the kernel reports `expected`, because it may acknowledge late.
    async fn check(stream: &TcpStream, expected: Traffic) {
        for _ in 0..2000 {
            if stream.traffic() == Some(expected) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{:?} instead of {expected:?}", stream.traffic());
    }

    #[tokio::test]
    async fn the_kernel_tells_how_far_bytes_have_come() {
        let v4 = IpAddr::from([127, 0, 0, 1]);
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        // The last is IPv4 on a socket of IPv6.
        for (listen, dial) in [(v4, v4), (v6, v6), (any, v4)] {
            let (mut dialled, mut accepted) = pair(SocketAddr::new(listen, 0), dial).await;
            accepted.write_all(&[7; 1000]).await.unwrap();
            dialled.write_all(&[7; 10]).await.unwrap();
            check(&accepted, Traffic { acknowledged: 1000, unacknowledged: 0, received: 10 }).await;
            let mut read = [0; 1000];
            dialled.read_exact(&mut read).await.unwrap();
            check(&accepted, Traffic { acknowledged: 1000, unacknowledged: 0, received: 10 }).await;
        }
    }

    #[tokio::test]
    async fn bytes_that_the_peer_does_not_take_stay_unacknowledged() {
        let v4 = IpAddr::from([127, 0, 0, 1]);
        let (dialled, accepted) = pair(SocketAddr::new(v4, 0), v4).await;
        let mut written = 0;
        while let Ok(count) = accepted.try_write(&[7; 64 * 1024]) {
            written += count as u64;
        }
        let traffic = accepted.traffic().unwrap();
        assert!(traffic.unacknowledged > 0, "{traffic:?}");
        assert_eq!(traffic.acknowledged + traffic.unacknowledged, written);
        let ends = Ends::of(&accepted).unwrap();
        drop((dialled, accepted));
        assert_eq!(ends.traffic(), None, "the connection is gone");
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_no_answer() {
        let mut message = vec![0; MESSAGE_BYTES];
        message[WRITE_QUEUE_AT..WRITE_QUEUE_AT + 4].copy_from_slice(&5_u32.to_ne_bytes());
        // An attribute of one byte, padded, and `tcp_info`.
        message.extend([5_u16.to_ne_bytes(), 8_u16.to_ne_bytes()].concat());
        message.extend([1, 0, 0, 0]);
        message.extend([140_u16.to_ne_bytes(), INET_DIAG_INFO.to_ne_bytes()].concat());
        message.extend([0; BYTES_ACKED_AT]);
        message.extend(6_u64.to_ne_bytes());
        message.extend(7_u64.to_ne_bytes());
        assert_eq!(read_message(&message), Some(Traffic { acknowledged: 6, unacknowledged: 5, received: 7 }));
        for length in 0..message.len() {
            assert_eq!(read_message(&message[..length]), None, "{length}");
        }
    }
}
