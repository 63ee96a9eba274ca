use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use thiserror::Error;
use tokio::sync::oneshot;

use super::Closing;
use tidegate_core::clock::Timestamp;
use tidegate_core::data_type::DataType;
use tidegate_core::lock::lock;

/// Size of a queued frame beside its data, in bytes: its place in the queue and its header.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// The bounded queue of frames for one socket, shared by everything that writes to it. An empty outbox holds no buffer.
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
    /// Bytes that are queued here, or were handed to the socket and are not written yet.
    bytes: usize,
    closing: Option<Closing>,
    /// Set when the socket is gone: nothing will be written any more.
    gone: bool,
}

/// A message on its way to a client. Its bytes are shared, and never copied on their way to the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFrame {
    pub(super) data: Bytes,
    pub(super) data_type: DataType,
}

impl DataFrame {
    /// Returns a text frame.
    pub fn text(text: String) -> Self {
        DataFrame { data: text.into(), data_type: DataType::Text }
    }

    /// Returns a frame of `data`. What is not UTF-8 becomes U+FFFD in a text frame, as on AWS.
    pub fn new(data: Bytes, data_type: DataType) -> Self {
        let data = match data_type {
            DataType::Text if std::str::from_utf8(&data).is_err() => String::from_utf8_lossy(&data).into_owned().into(),
            DataType::Text | DataType::Binary => data,
        };
        DataFrame { data, data_type }
    }

    /// Returns the size of its data, in bytes.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Returns true if it has no data.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Returns its data, shared.
    pub fn bytes(&self) -> Bytes {
        self.data.clone()
    }

    /// Returns the type of its data.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) frame: DataFrame,
    pub(super) cost: usize,
    poster: Poster,
}

impl Queued {
    /// Notifies the poster that the frame is in the socket as a whole.
    pub(super) fn written(self) {
        match self.poster {
            Poster::Nobody => {}
            // A poster that has gone does not need the answer.
            Poster::Waiting(written) => drop(written.send(())),
            Poster::Receipt(receipt) => receipt.written(),
        }
    }
}

/// The poster of a frame, which is notified of the outcome. If it is dropped before the frame is written, the frame
/// never will be.
#[derive(Debug)]
enum Poster {
    Nobody,
    Waiting(oneshot::Sender<()>),
    Receipt(Receipt),
}

/// A receiver of the outcomes of many frames, without a task or an allocation for each.
pub trait Receipts: fmt::Debug + Send + Sync {
    /// Notes that frame number `id` was written as a whole, or never will be. Called once for each frame that was
    /// queued, from the session's task.
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

/// The outcome of a frame: `Ok` once it was written as a whole, an error if the connection ended before.
pub type Delivery = oneshot::Receiver<()>;

/// The reason why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PostRefused {
    #[error("the connection is closed or closing")]
    Gone,
    #[error("the connection's send buffer is full")]
    Full,
}

impl Outbox {
    /// Returns an empty outbox that accepts up to `limit_bytes`. A single larger frame is accepted when nothing else
    /// waits.
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
    /// [`PostRefused::Gone`] and [`PostRefused::Full`].
    pub fn post(&self, frame: DataFrame, now: Timestamp) -> Result<Delivery, PostRefused> {
        let (written, delivery) = oneshot::channel();
        self.take(frame, now, || Poster::Waiting(written))?;
        Ok(delivery)
    }

    /// Queues a frame as [`Outbox::post`] does, for a poster of many frames: `receipts` is notified of the outcome of
    /// frame number `id`.
    ///
    /// # Errors
    /// Returns [`PostRefused::Gone`] or [`PostRefused::Full`]; then `receipts` is not notified.
    pub fn post_for(
        &self,
        frame: DataFrame,
        now: Timestamp,
        receipts: Arc<dyn Receipts>,
        id: u64,
    ) -> Result<(), PostRefused> {
        self.take(frame, now, || Poster::Receipt(Receipt { receipts, id, written: false }))
    }

    fn take(&self, frame: DataFrame, now: Timestamp, poster: impl FnOnce() -> Poster) -> Result<(), PostRefused> {
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

    /// Queues a frame of the gateway itself or the reply of a route. It may exceed the limit: the session reads no
    /// further message until there is room, so its dispatches in flight bound the excess.
    pub fn reply(&self, frame: DataFrame) {
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

    /// Asks the session to close: after the queued frames are written, or at once if `closing` forbids to write any
    /// more. The first reason stands, unless a later one forbids to write. Returns false if an earlier reason stands,
    /// or the socket is gone.
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
        // The posters of these frames are notified that they are not written, and may take this lock: it must be free.
        drop(dropped);
        self.writer.wake();
        true
    }

    /// Returns the reason if the session has to close without writing anything more.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<Closing> {
        self.writer.register(cx.waker());
        match &self.lock().closing {
            Some(closing) if closing.is_cut() => Poll::Ready(closing.clone()),
            Some(_) | None => Poll::Pending,
        }
    }

    /// Returns true if the outbox still accepts posts.
    pub fn is_open(&self) -> bool {
        let state = self.lock();
        !state.gone && state.closing.is_none()
    }

    /// Returns the number of bytes that wait to be written.
    pub fn buffered_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Returns true if the buffer is full.
    pub fn is_full(&self) -> bool {
        self.lock().bytes >= self.limit_bytes
    }

    /// Notes that data came in or went out at `now`.
    pub fn touch(&self, now: Timestamp) {
        self.last_active.fetch_max(now.millis(), Ordering::Relaxed);
    }

    /// Returns the time when data last came in or went out.
    pub fn last_active(&self) -> Timestamp {
        Timestamp(self.last_active.load(Ordering::Relaxed))
    }

    /// Moves all queued frames into `sending`, which is empty. Returns the reason to close once everything was moved
    /// and a close was requested.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>, sending: &mut VecDeque<Queued>) -> Poll<Option<Closing>> {
        self.writer.register(cx.waker());
        // The waker is registered before the queue is checked, so that no frame is missed.
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

    /// Frees the space of frames of this `cost`, which are in the socket.
    pub(super) fn release(&self, cost: usize) {
        self.lock().bytes -= cost;
    }

    /// Notes that the socket is gone. The queued frames are dropped, which notifies their posters.
    pub(crate) fn end(&self) {
        let frames = {
            let mut state = self.lock();
            state.gone = true;
            std::mem::take(&mut state.frames)
        };
        drop(frames);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
impl Outbox {
    /// Writes all queued frames, as the session of a socket does that accepts everything.
    pub(crate) fn write_all(&self) -> Vec<DataFrame> {
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
