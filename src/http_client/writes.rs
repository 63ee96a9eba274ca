//! [`Watched`]: a socket that tells whether something was written to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::transport::Connection;

/// The number of writes that a socket has taken, for those who do not hold the socket itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Arc<AtomicUsize>);

impl Writes {
    /// Counts the writes so far. As long as the count is the same, not a byte has gone out.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one. Only the owner of the socket writes, so no other count gets lost.
    fn note(&self) {
        self.0.store(self.count().wrapping_add(1), Ordering::Relaxed);
    }
}

/// A TCP connection whose writes are counted. TLS and HTTP are on top of it: what they only buffer does not count.
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
