use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::call::{Caller, LocalConnections, PeerRequest};
use super::frame::{LinkFrame, encode_answers};
use super::frame_stream::{FrameStream, FrameStreamError};
use super::handle::{Link, Outgoing};
use super::links::RegisteredLink;
use super::peer_outcome::PeerOutcome;
use super::renewal::RenewalRequest;
use tidegate_http::transport::{Connection, LOOKS, Patience, Traffic, Watch};

/// Bytes to write in one system call, about; a single larger frame goes alone.
const WRITE_BATCH_BYTES: usize = 64 * 1024;

/// Longest time for a link to close after the goodbye while no bytes move, and longest time if the peer still reads
/// answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The reason why a link is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The connection was closed or failed.
    Lost,
    /// The peer sent nothing, although it was pinged.
    Silent,
    /// The peer sent bytes that are no frame, or more calls than it may.
    Protocol,
    /// The peer has left for good.
    Goodbye,
    /// This node leaves.
    Left,
    /// The peer dialled anew or is dead, or this node has another id or does not wait for the peer any longer.
    Stopped,
}

impl LinkEnd {
    /// Returns its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            LinkEnd::Lost => "lost",
            LinkEnd::Silent => "silent",
            LinkEnd::Protocol => "protocol",
            LinkEnd::Goodbye => "goodbye",
            LinkEnd::Left => "left",
            LinkEnd::Stopped => "stopped",
        }
    }
}

/// Moves the bytes of one link until it is over. One task does everything: it reads calls and acts on them in their
/// order, and writes all that waits in as few system calls as it can.
///
/// A peer that is silent for `quiet` gets a ping; if it stays silent for another `quiet`, the link is over. This second
/// time does not run while the peer's TCP acknowledges bytes that were written before the ping: over a slow network a
/// large body can delay the ping for long.
pub(super) async fn drive<S: Connection>(
    stream: FrameStream<S>,
    registered: &mut RegisteredLink,
    local: &dyn LocalConnections,
    quiet: Duration,
) -> LinkEnd {
    let link = Arc::clone(registered.link());
    let caller: Arc<dyn Caller> = Arc::clone(&link) as Arc<dyn Caller>;
    let now = Instant::now();
    let mut driver = Driver {
        stream,
        link,
        renewals: registered.renewals().clone(),
        caller,
        local,
        outbox: WriteBatch::default(),
        left: 0,
        last_read_at: now,
        pinged_at: None,
        watch: None,
        is_blocked: false,
        quiet,
        ping_due: false,
        pong_due: false,
        said_goodbye: false,
    };
    let mut timer = pin!(sleep_until(now + quiet));
    let end = poll_fn(|cx| driver.poll(cx, timer.as_mut())).await;
    if end == LinkEnd::Left {
        // The peer closes when it has read the goodbye. Closing a socket with unread bytes may reset it, and the peer
        // would lose the goodbye; so read until the peer has closed.
        let mut patience = Patience::new(CLOSE_TIMEOUT, CLOSE_MAX);
        while let Some(at) = patience.next_look()
            && !driver.link.is_stopped()
            && timeout_at(at, driver.close()).await.is_err()
        {
            patience.look(driver.traffic(), false);
        }
    }
    registered.ended(driver.left, end == LinkEnd::Goodbye);
    end
}

struct Driver<'a, S> {
    stream: FrameStream<S>,
    link: Arc<Link>,
    renewals: mpsc::Sender<RenewalRequest>,
    caller: Arc<dyn Caller>,
    local: &'a dyn LocalConnections,
    outbox: WriteBatch,
    /// Id of the last call whose frame is in the socket as a whole.
    left: u64,
    /// Time when the peer was last heard.
    last_read_at: Instant,
    /// Time from which the peer could have answered the last ping, if it has been silent since.
    pinged_at: Option<Instant>,
    /// Observation of the bytes that the peer's TCP acknowledges after the ping.
    watch: Option<Watch>,
    /// True if bytes wait that the socket has not accepted.
    is_blocked: bool,
    quiet: Duration,
    ping_due: bool,
    pong_due: bool,
    said_goodbye: bool,
}

impl<S: Connection> Driver<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<LinkEnd> {
        // The waker is registered before anything is checked, so that everything that comes later wakes this task.
        self.link.register(cx);
        loop {
            if self.link.is_stopped() {
                return Poll::Ready(LinkEnd::Stopped);
            }
            let read = match self.poll_read(cx) {
                Ok(read) => read,
                Err(end) => return Poll::Ready(end),
            };
            let written = self.poll_write(cx);
            self.is_blocked = written.is_pending();
            match written {
                Poll::Ready(Ok(())) if self.said_goodbye => return Poll::Ready(LinkEnd::Left),
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(end)) => return Poll::Ready(end),
            }
            if read {
                continue;
            }
            ready!(timer.as_mut().poll(cx));
            match self.liveness(Instant::now()) {
                Ok(until) => timer.as_mut().reset(until),
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    /// Reads once, and acts on everything that came. Returns true if there may be more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkEnd> {
        let read = match self.stream.poll_read(cx) {
            Poll::Ready(read) => read.map(|()| true),
            Poll::Pending => Ok(false),
        };
        if matches!(read, Ok(true)) {
            self.last_read_at = Instant::now();
            self.pinged_at = None;
        }
        // All frames are acted on before anything is written, so that their answers go out together.
        while let Some(frame) = self.stream.next_read().map_err(|error| end_of(&error))? {
            self.act(&frame)?;
        }
        read.map_err(|error| end_of(&error))
    }

    fn act(&mut self, frame: &Bytes) -> Result<(), LinkEnd> {
        if self.link.is_stopped() {
            // A newer link may have replaced this one; frames that are left here must not overtake those that come
            // there.
            return Err(LinkEnd::Stopped);
        }
        let frame = LinkFrame::decode(frame).map_err(|_| LinkEnd::Protocol)?;
        match frame {
            LinkFrame::Post { .. }
            | LinkFrame::Get { .. }
            | LinkFrame::Delete { .. }
            | LinkFrame::Ask { .. }
            | LinkFrame::Renew { .. }
                if self.said_goodbye => {}
            LinkFrame::Post { .. }
            | LinkFrame::Get { .. }
            | LinkFrame::Delete { .. }
            | LinkFrame::Ask { .. }
            | LinkFrame::Renew { .. }
                if !self.link.owe() =>
            {
                return Err(LinkEnd::Protocol);
            }
            LinkFrame::Post { id, to, data_type, data } => {
                self.local.post(to, data, data_type, &self.caller, id);
            }
            LinkFrame::Get { id, to } => self.local.get(to, &self.caller, id),
            LinkFrame::Delete { id, to, code, reason } => self.link.answer(id, self.local.delete(to, code, reason)),
            LinkFrame::Ask { id, head, data } => self.local.ask(head, data, &self.caller, id),
            LinkFrame::Renew { id, epoch, lease_millis } => {
                let lease = Duration::from_millis(lease_millis.into());
                if self.renewals.try_send(RenewalRequest::new(&self.link, id, epoch, lease)).is_err() {
                    self.link.answer(id, PeerOutcome::Unavailable);
                }
            }
            LinkFrame::Answers(answers) => self.link.answered(answers),
            LinkFrame::Info { id, info } => self.link.answered_info(id, info),
            LinkFrame::Ping => self.pong_due = true,
            LinkFrame::Pong => {}
            LinkFrame::Goodbye => return Err(LinkEnd::Goodbye),
        }
        Ok(())
    }

    /// Writes everything that waits. Ready when nothing does.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        loop {
            if self.outbox.accepts_calls() && !self.said_goodbye {
                self.fill_outbox();
            }
            if self.outbox.is_empty() {
                return Pin::new(&mut self.stream.io).poll_flush(cx).map_err(|_| LinkEnd::Lost);
            }
            let Ok(written) = ready!(self.outbox.poll_write(cx, &mut self.stream.io)) else {
                // TLS may have sent a part of the bytes before it failed, so every call in the batch may have left.
                self.left = self.outbox.last_call().unwrap_or(self.left);
                return Poll::Ready(Err(LinkEnd::Lost));
            };
            if let Some(left) = self.outbox.written(written) {
                self.left = left;
            }
        }
    }

    fn fill_outbox(&mut self) {
        if std::mem::take(&mut self.ping_due) {
            self.outbox.add(&LinkFrame::Ping);
        }
        if std::mem::take(&mut self.pong_due) {
            self.outbox.add(&LinkFrame::Pong);
        }
        if self.link.take(&mut self.outbox) {
            self.outbox.add(&LinkFrame::Goodbye);
            self.said_goodbye = true;
        }
    }

    /// Returns when to look again, or that the peer is gone.
    fn liveness(&mut self, now: Instant) -> Result<Instant, LinkEnd> {
        let Some(pinged_at) = self.pinged_at else {
            if now < self.last_read_at + self.quiet {
                return Ok(self.last_read_at + self.quiet);
            }
            (self.pinged_at, self.watch, self.ping_due) = (Some(now), None, true);
            return Ok(now + self.quiet / LOOKS);
        };
        let mut since = pinged_at;
        if Watch::next_look(self.watch.as_ref(), since, self.quiet).is_some_and(|at| at <= now) {
            let (traffic, is_blocked) = (self.traffic(), self.is_blocked);
            match &mut self.watch {
                None => self.watch = Some(Watch::new(now, traffic, is_blocked)),
                Some(watch) => {
                    let moved = watch.look(now, traffic, is_blocked);
                    if moved.came || moved.before_question {
                        since = now;
                        self.pinged_at = Some(since);
                    }
                }
            }
        }
        Watch::next_look(self.watch.as_ref(), since, self.quiet).ok_or(LinkEnd::Silent)
    }

    /// Returns the progress of the link's bytes. If the kernel does not report it, these are the bytes that the socket
    /// has accepted.
    fn traffic(&self) -> Traffic {
        let own = Traffic { acknowledged: self.outbox.written, ..Traffic::default() };
        self.stream.io.traffic().unwrap_or(own)
    }

    /// Closes this side and waits for the other. May be dropped and called again.
    async fn close(&mut self) {
        let _ = self.stream.io.shutdown().await;
        while poll_fn(|cx| self.stream.poll_read(cx)).await.is_ok() {
            while let Ok(Some(_)) = self.stream.next_read() {}
        }
    }
}

fn end_of(error: &FrameStreamError) -> LinkEnd {
    match error {
        FrameStreamError::Closed | FrameStreamError::Io(_) => LinkEnd::Lost,
        FrameStreamError::TooLarge | FrameStreamError::Tls => LinkEnd::Protocol,
    }
}

/// The bytes to be written: frames in one buffer, and at most one large body behind them.
#[derive(Debug, Default)]
struct WriteBatch {
    frames: BytesMut,
    behind: Bytes,
    /// Bytes that were added and that were written, since the link began.
    added: u64,
    written: u64,
    /// Positions at which the frames of calls end, counted in added bytes, and the ids of the calls.
    ends: VecDeque<(u64, u64)>,
}

impl WriteBatch {
    /// Adds `frame`. Nothing may be added behind a large body.
    fn add(&mut self, frame: &LinkFrame<'_>) {
        debug_assert!(self.behind.is_empty());
        let before = self.frames.len();
        self.behind = frame.encode(&mut self.frames);
        self.added += (self.frames.len() - before + self.behind.len()) as u64;
    }

    /// Returns the last call of the batch.
    fn last_call(&self) -> Option<u64> {
        self.ends.back().map(|(_, id)| *id)
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.behind.is_empty()
    }

    fn poll_write(&self, cx: &mut Context<'_>, io: &mut (impl AsyncWrite + Unpin)) -> Poll<std::io::Result<usize>> {
        let written = match (self.frames.is_empty(), self.behind.is_empty()) {
            (_, true) => Pin::new(io).poll_write(cx, &self.frames),
            (true, false) => Pin::new(io).poll_write(cx, &self.behind),
            (false, false) => {
                Pin::new(io).poll_write_vectored(cx, &[IoSlice::new(&self.frames), IoSlice::new(&self.behind)])
            }
        };
        match ready!(written) {
            Ok(0) => Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(written),
        }
    }

    /// Notes that `count` bytes are in the socket. Returns the last call whose frame is there as a whole, if there is a
    /// new one.
    fn written(&mut self, count: usize) -> Option<u64> {
        let of_frames = count.min(self.frames.len());
        self.frames.advance(of_frames);
        self.behind.advance(count - of_frames);
        self.written += count as u64;
        let mut left = None;
        while let Some((_, id)) = self.ends.pop_front_if(|(end, _)| *end <= self.written) {
            left = Some(id);
        }
        if self.is_empty() && self.frames.capacity() > 4 * WRITE_BATCH_BYTES {
            self.frames = BytesMut::new();
        }
        left
    }
}

impl Outgoing for WriteBatch {
    fn answers(&mut self, answers: &[(u64, PeerOutcome)]) {
        let before = self.frames.len();
        encode_answers(answers, &mut self.frames);
        self.added += (self.frames.len() - before) as u64;
    }

    fn info(&mut self, id: u64, info: Bytes) {
        self.add(&LinkFrame::Info { id, info });
    }

    fn call(&mut self, id: u64, call: &PeerRequest) {
        self.add(&call.frame(id));
        self.ends.push_back((self.added, id));
    }

    fn accepts_calls(&self) -> bool {
        self.behind.is_empty() && self.frames.len() < WRITE_BATCH_BYTES
    }
}
