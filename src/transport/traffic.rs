use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// A stream of bytes to a peer.
pub trait Connection: AsyncRead + AsyncWrite + Unpin {
    /// The TCP connection below it, if there is one.
    fn tcp(&self) -> Option<&TcpStream>;

    /// Asks the kernel how far the bytes have come, those of TLS included. `None` if it does not say.
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

/// Tests have streams in memory.
impl Connection for DuplexStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// How far the bytes of one connection have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that the peer's TCP has acknowledged so far.
    pub acknowledged: u64,
    /// Bytes that wait in this kernel, or are on their way to the peer's.
    pub unacknowledged: u64,
    /// Bytes that have come from the peer so far, read or not.
    pub received: u64,
}

/// Both ends of a TCP connection, which name it to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Ends {
    /// The ends of an open connection; `None` if it is gone.
    pub fn of(stream: &TcpStream) -> Option<Self> {
        Some(Ends { local: stream.local_addr().ok()?, remote: stream.peer_addr().ok()? })
    }

    /// Asks the kernel how far the bytes have come. `None` if it does not say.
    pub fn traffic(&self) -> Option<Traffic> {
        #[cfg(target_os = "linux")]
        return super::sock_diag::traffic(self);
        #[cfg(not(target_os = "linux"))]
        None
    }
}
