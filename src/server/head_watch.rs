use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const NAME: &[u8; 15] = b"content-length:";

/// Sees what the HTTP library hides: whether the head of a request had a `Content-Length`. Of a request with both that
/// and `Transfer-Encoding` the library drops the length, and such a request is to be refused (RFC 9112, section 6.1).
///
/// Heads that come before their predecessor is answered are not looked at; the library closes after such a request.
#[derive(Debug)]
pub(super) struct HeadWatch<S> {
    io: S,
    watch: Watch,
    /// Characters of the name that the current line has matched, or none if it is another line.
    matched: Option<usize>,
    /// Bytes of the current line that are not its end.
    line_bytes: usize,
}

/// What the service and the stream of one connection know of each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    /// The current head is over.
    is_over: AtomicBool,
    has_length: AtomicBool,
}

/// What was seen of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) has_length: bool,
}

impl Watch {
    /// What was seen of the head that the library has just read.
    pub(super) fn head(&self) -> Head {
        Head { has_length: self.0.has_length.load(Ordering::Relaxed) }
    }

    /// The request is answered; what comes is a head again.
    pub(super) fn next(&self) {
        self.0.has_length.store(false, Ordering::Relaxed);
        self.0.is_over.store(false, Ordering::Relaxed);
    }
}

impl<S> HeadWatch<S> {
    pub(super) fn new(io: S, watch: Watch) -> Self {
        HeadWatch { io, watch, matched: Some(0), line_bytes: 0 }
    }

    pub(super) fn into_inner(self) -> S {
        self.io
    }

    fn see(&mut self, bytes: &[u8]) {
        let flags = &self.watch.0;
        if flags.is_over.load(Ordering::Relaxed) {
            return;
        }
        for byte in bytes {
            match byte {
                b'\n' if self.line_bytes == 0 => {
                    self.matched = Some(0);
                    return flags.is_over.store(true, Ordering::Relaxed);
                }
                b'\n' => (self.matched, self.line_bytes) = (Some(0), 0),
                b'\r' => {}
                _ => {
                    self.line_bytes += 1;
                    let matched = self.matched.filter(|matched| NAME[*matched] == byte.to_ascii_lowercase());
                    self.matched = matched.map(|matched| matched + 1);
                    if self.matched == Some(NAME.len()) {
                        self.matched = None;
                        flags.has_length.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadWatch<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.see(&buffer.filled()[before..]);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadWatch<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_seen_in_the_head_and_nowhere_else() {
        let check = |text: &str, expected: bool| {
            for chunk in [1, 3, 1000] {
                let watch = Watch::default();
                let mut stream = HeadWatch::new((), watch.clone());
                text.as_bytes().chunks(chunk).for_each(|bytes| stream.see(bytes));
                assert_eq!(watch.head().has_length, expected, "{text:?}");
            }
        };
        check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nCONTENT-LENGTH:5\r\n\r\n", true);
        check("POST / HTTP/1.1\nX: content-length: 5\n\n", false);
        check("POST / HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nHost: a\r\n\r\nContent-Length: 5\r\n", false);
    }

    #[test]
    fn each_head_is_looked_at_anew() {
        let watch = Watch::default();
        let mut stream = HeadWatch::new((), watch.clone());
        stream.see(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
        assert!(watch.head().has_length);
        watch.next();
        stream.see(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        assert!(!watch.head().has_length);
    }
}
