use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http::{is_whole, read_response, request};
use crate::{HttpResponse, within};

/// A TCP connection on which a test says what it likes.
pub struct RawClient {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A frame as it was on the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// FIN, reserved bits and opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

impl RawClient {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(address)).await.expect("a TCP connection");
        RawClient::of(stream)
    }

    /// Takes a TCP connection of the test's making.
    pub fn of(stream: TcpStream) -> Self {
        RawClient { stream, buffer: Vec::new() }
    }

    /// Opens a WebSocket, whose frames are still the test's own.
    pub async fn upgrade(address: SocketAddr, target: &str) -> Self {
        let mut client = Self::connect(address).await;
        client.send(&handshake(address, target, &[])).await;
        assert_eq!(client.response().await.status, 101);
        client
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        within("sending", self.stream.write_all(bytes)).await.expect("sent");
    }

    /// Returns the next HTTP response.
    pub async fn response(&mut self) -> HttpResponse {
        read_response(&mut self.stream, &mut self.buffer).await
    }

    /// Returns the next frame; none at the end of the connection.
    pub async fn next_frame(&mut self) -> Option<RawFrame> {
        let first = self.take(1).await?[0];
        let second = self.take(1).await?[0];
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let length = match second {
            126 => u64::from(u16::from_be_bytes(self.take(2).await?.try_into().expect("two"))),
            127 => u64::from_be_bytes(self.take(8).await?.try_into().expect("eight")),
            small => u64::from(small),
        };
        let payload = self.take(usize::try_from(length).expect("fits")).await?;
        Some(RawFrame { first, payload })
    }

    /// Returns code and reason of the close frame, which has to be next.
    pub async fn next_close(&mut self) -> (u16, String) {
        let frame = self.next_frame().await.expect("a close frame, not the end of the connection");
        assert_eq!(frame.first, 0x88, "{frame:?}");
        let code = u16::from_be_bytes(frame.payload[..2].try_into().expect("two"));
        (code, String::from_utf8(frame.payload[2..].to_vec()).expect("UTF-8"))
    }

    /// Waits for the end of the connection, and returns what came before it.
    pub async fn end(&mut self) -> Vec<u8> {
        within("the end of the connection", async {
            // A reset is an end too.
            while matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {}
        })
        .await;
        std::mem::take(&mut self.buffer)
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).expect("an open socket");
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        within("bytes", async {
            while self.buffer.len() < length {
                if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                    return None;
                }
            }
            Some(self.buffer.drain(..length).collect())
        })
        .await
    }
}

/// Opens a TCP connection from one of the loopback addresses.
pub async fn connect_from(source: &str, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0))?;
    within("a TCP connection", socket.connect(address)).await
}

/// Opens a connection of TLS for the host `name`.
///
/// # Errors
/// A side that does not accept the other.
pub async fn connect_tls(
    address: SocketAddr,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Sends bytes on a connection of their own; returns the answer as text, and nothing if there is none.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a TCP connection");
    raw_on(&mut stream, bytes).await
}

/// Sends bytes; returns the answer as text, to the end of its body or of the connection.
pub async fn raw_on(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> String {
    // The gateway may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    within("an answer or the end", async {
        while !is_whole(&answer) && matches!(stream.read_buf(&mut answer).await, Ok(1..)) {}
    })
    .await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Opens a TCP connection whose kernel takes little that is not read.
pub async fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    within("a TCP connection", socket.connect(address)).await.expect("a TCP connection")
}

/// Returns the bytes of a handshake. Headers of the same name replace those that it would have.
pub fn handshake(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let is_replaced = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let all: Vec<_> = usual.into_iter().filter(|(name, _)| !is_replaced(name)).chain(headers.iter().copied()).collect();
    request(address, "GET", target, &all, b"")
}

/// Returns the bytes of a masked frame that begins with `first`: FIN, reserved bits and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(small @ ..=125), _) => bytes.push(0x80 | small),
        (_, Ok(medium)) => {
            bytes.push(0x80 | 126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
