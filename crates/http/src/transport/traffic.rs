use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// A stream of bytes to a peer.
pub trait Connection: AsyncRead + AsyncWrite + Unpin {
    /// Returns the TCP connection below the stream, if there is one.
    fn tcp(&self) -> Option<&TcpStream>;

    /// Asks the kernel how far the bytes have come, including those of TLS. Returns `None` if the kernel does not
    /// answer.
    fn traffic(&self) -> Option<Traffic> {
        Ends::of(self.tcp()?)?.traffic()
    }
}

impl Connection for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl<S: Connection> Connection for server::TlsStream<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.get_ref().0.tcp()
    }
}

impl<S: Connection> Connection for client::TlsStream<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.get_ref().0.tcp()
    }
}

impl<S: Connection + ?Sized> Connection for Box<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        (**self).tcp()
    }
}

/// The stream in memory that tests use.
impl Connection for DuplexStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// The progress of the bytes of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that the peer's TCP has acknowledged so far.
    pub acknowledged: u64,
    /// Bytes that wait in this kernel, or are on their way to the peer's.
    pub unacknowledged: u64,
    /// Bytes that have come from the peer so far, read or not.
    pub received: u64,
}

/// The two ends of a TCP connection, which identify it to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Ends {
    /// Returns the ends of an open connection, or `None` if it is gone.
    pub fn of(stream: &TcpStream) -> Option<Self> {
        Some(Ends { local: stream.local_addr().ok()?, remote: stream.peer_addr().ok()? })
    }

    /// Asks the kernel how far the bytes have come. Returns `None` if the kernel does not answer.
    pub fn traffic(&self) -> Option<Traffic> {
        #[cfg(target_os = "linux")]
        return super::sock_diag::traffic(self);
        #[cfg(not(target_os = "linux"))]
        None
    }
}
