use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use thiserror::Error;
use tokio::sync::oneshot;

use super::Closing;
use crate::clock::Timestamp;

/// What a frame costs the send buffer beside its data: its place in the queue and its header.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// All that is to be written to one socket, shared by everybody who writes to it. Its bytes are bounded; while it is
/// empty it holds no buffer.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    writer: AtomicWaker,
    last_active: AtomicU64,
    limit_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Queued>,
    /// Bytes queued here or handed to the socket and not yet written.
    bytes: usize,
    closing: Option<Closing>,
    /// The socket is gone; nothing will be written any more.
    gone: bool,
}

/// One message on its way to a client. Its bytes are shared, never copied on their way to the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub(super) data: Bytes,
    pub(super) kind: FrameKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    Text,
    Binary,
}

impl Frame {
    /// A text frame.
    pub fn text(text: String) -> Self {
        Frame { data: text.into(), kind: FrameKind::Text }
    }

    /// A text frame of any bytes; what is not UTF-8 becomes U+FFFD, as on AWS.
    pub fn text_lossy(bytes: Bytes) -> Self {
        let data = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes,
            Err(_) => String::from_utf8_lossy(&bytes).into_owned().into(),
        };
        Frame { data, kind: FrameKind::Text }
    }

    /// Bytes of its data.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has no data.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Its data, shared.
    pub fn bytes(&self) -> Bytes {
        self.data.clone()
    }

    /// Whether it is a binary frame.
    pub fn is_binary(&self) -> bool {
        self.kind == FrameKind::Binary
    }

    /// A binary frame.
    pub fn binary(data: Bytes) -> Self {
        Frame { data, kind: FrameKind::Binary }
    }
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) frame: Frame,
    pub(super) cost: usize,
    poster: Poster,
}

impl Queued {
    /// Tells the poster that the whole frame is in the socket.
    pub(super) fn written(self) {
        match self.poster {
            Poster::Nobody => {}
            // A poster that has gone away does not need the answer.
            Poster::Waiting(written) => drop(written.send(())),
            Poster::Receipt(receipt) => receipt.written(),
        }
    }
}

/// Who learns what became of a frame. Dropped unwritten, the frame never will be.
#[derive(Debug)]
enum Poster {
    Nobody,
    Waiting(oneshot::Sender<()>),
    Receipt(Receipt),
}

/// Learns what became of many frames, without a task or an allocation for each.
pub trait Receipts: fmt::Debug + Send + Sync {
    /// The frame that was posted as number `id` was written whole, or never will be. Called once for each frame that
    /// was taken, from the session's task.
    fn settle(&self, id: u64, written: bool);
}

#[derive(Debug)]
struct Receipt {
    receipts: Arc<dyn Receipts>,
    id: u64,
    written: bool,
}

impl Receipt {
    fn written(mut self) {
        self.written = true;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.receipts.settle(self.id, self.written);
    }
}

/// Resolves when a frame's fate is known: `Ok` once it was written whole, an error if the connection ended first.
pub type Delivery = oneshot::Receiver<()>;

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PostRefused {
    #[error("the connection is closed or closing")]
    Gone,
    #[error("the connection's send buffer is full")]
    Full,
}

impl Outbox {
    /// An empty one that takes up to `limit_bytes`. A single larger frame is taken when nothing else waits.
    pub fn new(limit_bytes: usize, now: Timestamp) -> Self {
        Outbox {
            state: Mutex::default(),
            writer: AtomicWaker::new(),
            last_active: AtomicU64::new(now.millis()),
            limit_bytes,
        }
    }

    /// Queues a frame from a backend. Frames are written in the order of these calls.
    ///
    /// # Errors
    /// The connection is closing, or its buffer is full.
    pub fn post(&self, frame: Frame, now: Timestamp) -> Result<Delivery, PostRefused> {
        let (written, delivery) = oneshot::channel();
        self.take(frame, now, || Poster::Waiting(written))?;
        Ok(delivery)
    }

    /// As [`Outbox::post`], for one who posts for many others: `receipts` learns what became of frame number `id`, if
    /// it was taken.
    ///
    /// # Errors
    /// As [`Outbox::post`]; then `receipts` hears nothing.
    pub fn post_for(
        &self,
        frame: Frame,
        now: Timestamp,
        receipts: Arc<dyn Receipts>,
        id: u64,
    ) -> Result<(), PostRefused> {
        self.take(frame, now, || Poster::Receipt(Receipt { receipts, id, written: false }))
    }

    fn take(&self, frame: Frame, now: Timestamp, poster: impl FnOnce() -> Poster) -> Result<(), PostRefused> {
        let cost = frame.data.len() + FRAME_OVERHEAD_BYTES;
        {
            let mut state = self.lock();
            if state.gone || state.closing.is_some() {
                return Err(PostRefused::Gone);
            }
            if state.bytes > 0 && state.bytes + cost > self.limit_bytes {
                return Err(PostRefused::Full);
            }
            state.push(Queued { frame, cost, poster: poster() });
        }
        self.touch(now);
        self.writer.wake();
        Ok(())
    }

    /// Queues a frame of the gateway's own or a route's reply. It may exceed the limit: the session reads no further
    /// message until there is room, so the excess is bounded by its dispatches in flight.
    pub fn reply(&self, frame: Frame) {
        let cost = frame.data.len() + FRAME_OVERHEAD_BYTES;
        {
            let mut state = self.lock();
            if state.gone || state.closing.is_some() {
                return;
            }
            state.push(Queued { frame, cost, poster: Poster::Nobody });
        }
        self.writer.wake();
    }

    /// Asks the session to close after what is queued was written, or without if nothing more may be. The first reason
    /// stands, unless a later one forbids to write; `false` if there was one.
    pub fn close(&self, closing: Closing) -> bool {
        let dropped = {
            let mut state = self.lock();
            let was_cut = state.closing.as_ref().is_some_and(Closing::is_cut);
            if state.gone || was_cut || (state.closing.is_some() && !closing.is_cut()) {
                return false;
            }
            let dropped = if closing.is_cut() { state.drop_frames() } else { VecDeque::new() };
            state.closing = Some(closing);
            dropped
        };
        // Their posters learn that they are not written, which may want this lock.
        drop(dropped);
        self.writer.wake();
        true
    }

    /// Ready with the reason if the session has to close without writing anything more.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<Closing> {
        self.writer.register(cx.waker());
        match &self.lock().closing {
            Some(closing) if closing.is_cut() => Poll::Ready(closing.clone()),
            Some(_) | None => Poll::Pending,
        }
    }

    /// Whether posts can still be taken.
    pub fn is_open(&self) -> bool {
        let state = self.lock();
        !state.gone && state.closing.is_none()
    }

    /// Bytes that wait to be written.
    pub fn buffered_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Whether the buffer is full.
    pub fn is_full(&self) -> bool {
        self.lock().bytes >= self.limit_bytes
    }

    /// Notes that data went in or out.
    pub fn touch(&self, now: Timestamp) {
        self.last_active.fetch_max(now.millis(), Ordering::Relaxed);
    }

    /// When data last went in or out.
    pub fn last_active(&self) -> Timestamp {
        Timestamp(self.last_active.load(Ordering::Relaxed))
    }

    /// Moves all that is queued into `sending`, which is empty. Ready with the reason to close once everything was taken
    /// and somebody asked for it.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>, sending: &mut VecDeque<Queued>) -> Poll<Option<Closing>> {
        self.writer.register(cx.waker());
        let mut state = self.lock();
        if !state.frames.is_empty() {
            std::mem::swap(&mut state.frames, sending);
            return Poll::Ready(None);
        }
        match &state.closing {
            Some(closing) => Poll::Ready(Some(closing.clone())),
            None => Poll::Pending,
        }
    }

    /// Frames of this cost are in the socket.
    pub(super) fn release(&self, cost: usize) {
        self.lock().bytes -= cost;
    }

    /// The socket is gone: whatever is queued will not be written, and its posters learn so.
    pub(crate) fn end(&self) {
        let frames = {
            let mut state = self.lock();
            state.gone = true;
            std::mem::take(&mut state.frames)
        };
        drop(frames);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Outbox {
    /// Writes all that is queued, as a session does whose socket takes everything.
    pub(crate) fn write_all(&self) -> Vec<Frame> {
        let frames = std::mem::take(&mut self.lock().frames);
        let write = |queued: Queued| {
            let frame = queued.frame.clone();
            self.release(queued.cost);
            queued.written();
            frame
        };
        frames.into_iter().map(write).collect()
    }
}

impl State {
    fn drop_frames(&mut self) -> VecDeque<Queued> {
        let frames = std::mem::take(&mut self.frames);
        self.bytes -= frames.iter().map(|queued| queued.cost).sum::<usize>();
        frames
    }

    fn push(&mut self, queued: Queued) {
        self.bytes += queued.cost;
        self.frames.push_back(queued);
    }
}
