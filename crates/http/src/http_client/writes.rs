//! [`Watched`]: a socket that counts its writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::transport::Connection;

/// The number of writes that a socket has taken, for code that does not hold the socket itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Arc<AtomicUsize>);

impl Writes {
    /// Returns the number of writes so far. As long as it is the same, no byte has been sent.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one write. Only the owner of the socket writes, so no concurrent count is lost.
    fn note(&self) {
        self.0.store(self.count().wrapping_add(1), Ordering::Relaxed);
    }
}

/// A TCP connection whose writes are counted. TLS and HTTP are layered on top, so bytes that they only buffer are not
/// counted.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    writes: Writes,
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> Self {
        Watched { stream, writes: Writes::default() }
    }

    pub(super) fn writes(&self) -> &Writes {
        &self.writes
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(bytes)) if bytes > 0) {
            self.writes.note();
        }
        written
    }
}

impl Connection for Watched {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(&self.stream)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
