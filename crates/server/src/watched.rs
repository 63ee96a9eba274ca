use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Framing;
use super::pace::{KeepAlive, Wait};

/// A connection below the HTTP library that observes what the library hides: the framing of each request, and what the
/// connection waits for.
#[derive(Debug)]
pub(super) struct Watched<S> {
    io: S,
    framing: Framing,
    watch: Watch,
}

/// The state that the stream, the service and the owner of one connection share. All three belong to one task.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Number of unambiguous heads since the beginning of the connection.
    whole_heads: AtomicUsize,
    is_in_head: AtomicBool,
    /// Number of requests that the library has handed over, and number of those that have an answer.
    asked: AtomicUsize,
    answered: AtomicUsize,
    /// True if the last answer went to a stranger, see [`KeepAlive`].
    is_stranger: AtomicBool,
    /// True if the other end has not read what was written last.
    is_stuck: AtomicBool,
    /// Number of times that the other end has read again after it was stuck.
    writes: AtomicUsize,
}

impl Watch {
    /// Notes that the library hands over the next request. Returns true if its head is unambiguous.
    pub(super) fn ask(&self) -> bool {
        let asked = self.0.asked.load(Ordering::Relaxed) + 1;
        self.0.asked.store(asked, Ordering::Relaxed);
        asked <= self.0.whole_heads.load(Ordering::Relaxed)
    }

    /// Notes that the request has its answer, and how long the connection is kept after it.
    pub(super) fn answer(&self, keep_alive: KeepAlive) {
        self.0.is_stranger.store(keep_alive == KeepAlive::Stranger, Ordering::Relaxed);
        self.0.answered.store(self.0.asked.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Returns what the connection waits for now.
    pub(super) fn wait(&self) -> Wait {
        let seen = &self.0;
        let (asked, answered) = (seen.asked.load(Ordering::Relaxed), seen.answered.load(Ordering::Relaxed));
        if seen.is_stuck.load(Ordering::Relaxed) {
            Wait::Taken { writes: seen.writes.load(Ordering::Relaxed) }
        } else if asked == 0 {
            Wait::FirstRequest
        } else if asked > answered {
            Wait::Answer
        } else if seen.is_in_head.load(Ordering::Relaxed) {
            Wait::Head { answered }
        } else {
            let stranger = seen.is_stranger.load(Ordering::Relaxed);
            Wait::NextRequest { answered, keep_alive: if stranger { KeepAlive::Stranger } else { KeepAlive::Known } }
        }
    }
}

impl<S> Watched<S> {
    pub(super) fn new(io: S, watch: Watch) -> Self {
        Watched { io, framing: Framing::default(), watch }
    }

    pub(super) fn into_inner(self) -> S {
        self.io
    }

    fn has_read(&mut self, bytes: &[u8]) {
        self.framing.read(bytes);
        self.watch.0.whole_heads.store(self.framing.whole_heads(), Ordering::Relaxed);
        self.watch.0.is_in_head.store(self.framing.is_in_head(), Ordering::Relaxed);
    }

    /// Notes if the other end reads what is written.
    fn has_written<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let seen = &self.watch.0;
        match &result {
            Poll::Ready(Ok(_)) if seen.is_stuck.load(Ordering::Relaxed) => {
                seen.is_stuck.store(false, Ordering::Relaxed);
                seen.writes.fetch_add(1, Ordering::Relaxed);
            }
            Poll::Ready(_) => {}
            Poll::Pending => seen.is_stuck.store(true, Ordering::Relaxed),
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.has_read(&buffer.filled()[before..]);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.has_written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.has_written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.has_written(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
