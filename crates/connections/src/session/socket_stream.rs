use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The byte stream below a WebSocket. It counts the bytes that pass, and lets only one side write at a time.
///
/// [`super::Socket`] writes data frames straight from their shared bytes; the WebSocket library writes its own control
/// frames (pong, ping, close) through [`AsyncWrite`]. While a data frame is half written, the library must wait. While
/// one of the library's frames is half written, [`SocketStream::owed`] is set.
#[derive(Debug)]
pub(super) struct SocketStream<S> {
    io: S,
    pub(super) read: u64,
    pub(super) written: u64,
    /// Set while a data frame is being written.
    pub(super) held: bool,
    /// Set while the library still has bytes of its own to write.
    pub(super) owed: bool,
}

impl<S> SocketStream<S> {
    pub(super) fn new(io: S) -> Self {
        SocketStream { io, read: 0, written: 0, held: false, owed: false }
    }

    /// Returns the stream itself.
    pub(super) fn below(&self) -> &S {
        &self.io
    }

    /// Returns the stream itself, for writing data frames.
    pub(super) fn io(&mut self) -> &mut S {
        &mut self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SocketStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.read += (buffer.filled().len() - before) as u64;
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SocketStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.held {
            // No waker is registered: the socket flushes the library itself as soon as the data frame is written.
            self.owed = true;
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        let written = if let Poll::Ready(Ok(written)) = result { written } else { 0 };
        self.written += written as u64;
        self.owed = written < bytes.len();
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
