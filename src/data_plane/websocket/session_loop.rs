use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{Instrument as _, debug};

use super::Admitted;
use super::message::{Dispatch, Dispatched, dispatch};
use crate::integration::Payload;
use crate::session::{Closing, Deadlines, Due, Frame, Incoming, Outbox, Socket, SocketSettings};
use crate::telemetry::execution_log;

/// Runs one session: from the 101 to the end of its last dispatch. One task does all of it, so nothing about the
/// connection needs a lock but its outbox.
///
/// Reading stops while as many dispatches as allowed are in flight, or while the outbox is full; writing never waits
/// for a backend.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(admitted: Admitted, io: S, already_read: Bytes) {
    let span = execution_log::connection_span(admitted.logging_level(), &admitted.connection);
    run(admitted, io, already_read).instrument(span).await;
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut admitted: Admitted, io: S, already_read: Bytes) {
    let limits = &admitted.live.limits;
    let settings = SocketSettings { message_max_bytes: limits.message_bytes, frame_max_bytes: limits.frame_bytes };
    let mut socket = Socket::new(io, already_read, Arc::clone(&admitted.outbox), settings).await;
    let mut dispatches = FuturesUnordered::new();
    let closing = Session {
        admitted: &admitted,
        socket: &mut socket,
        dispatches: &mut dispatches,
        deadlines: Deadlines::new(limits, &admitted.live.keep_alive, Instant::now(), rand::random()),
        concurrent_dispatches: limits.concurrent_dispatches.into(),
        sent: 0,
        writing: false,
    }
    .run()
    .await;
    debug!(
        connection_id = %admitted.connection.id, code = closing.code, reason = &*closing.reason,
        cause = closing.cause, "disconnected"
    );
    admitted.end(closing.clone());
    socket.close(&closing).await;
    // What the client sent before it went still reaches the backend, and only then its `$disconnect`.
    let last_dispatches = async {
        while dispatches.next().await.is_some() {}
        drop(admitted);
    };
    tokio::join!(last_dispatches, socket.linger(&closing));
}

struct Session<'a, S> {
    admitted: &'a Admitted,
    socket: &'a mut Socket<S>,
    dispatches: &'a mut FuturesUnordered<Dispatch>,
    deadlines: Deadlines,
    concurrent_dispatches: usize,
    /// Frames written when last looked at.
    sent: u64,
    /// Whether something waited to be written when last looked at.
    writing: bool,
}

/// What a session wakes up for.
enum Step {
    Incoming(Incoming),
    Replied(Option<Frame>),
    Timer,
    End(Closing),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    async fn run(mut self) -> Closing {
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            let step = poll_fn(|cx| self.poll_step(cx, timer.as_mut())).await;
            match step {
                Step::Incoming(Incoming::Text(text)) => self.message(Payload::Text(text)),
                Step::Incoming(Incoming::Binary(bytes)) => self.message(Payload::Binary(bytes)),
                // A client that pings wants to stay.
                Step::Incoming(Incoming::Ping) => self.deadlines.data(Instant::now()),
                Step::Incoming(Incoming::Pong) => {}
                Step::Incoming(Incoming::End(closing)) | Step::End(closing) => return closing,
                Step::Replied(reply) => {
                    if let Some(frame) = reply {
                        self.outbox().reply(frame);
                    }
                }
                Step::Timer => {
                    let observed = self.socket.observe(self.is_reading());
                    match self.deadlines.due(Instant::now(), observed) {
                        Due::Nothing { until } => timer.as_mut().reset(until),
                        Due::Ping => self.socket.ping(),
                        Due::Close(closing) => return closing,
                    }
                }
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Step> {
        if let Poll::Ready(closing) = self.socket.poll_send(cx) {
            return Poll::Ready(Step::End(closing));
        }
        if self.socket.frames_sent() != self.sent {
            self.sent = self.socket.frames_sent();
            self.deadlines.data(Instant::now());
        }
        if let Poll::Ready(Some(reply)) = Pin::new(&mut *self.dispatches).poll_next(cx) {
            return Poll::Ready(Step::Replied(reply));
        }
        if self.is_reading()
            && let Poll::Ready(incoming) = self.socket.poll_incoming(cx)
        {
            return Poll::Ready(Step::Incoming(incoming));
        }
        let writing = self.socket.observe(true).writing;
        let stalled = writing && !self.writing;
        self.writing = writing;
        // The timer may be set far ahead: a stall that begins has its own deadline.
        if stalled || timer.poll(cx).is_ready() {
            return Poll::Ready(Step::Timer);
        }
        Poll::Pending
    }

    fn message(&mut self, payload: Payload) {
        self.deadlines.data(Instant::now());
        self.outbox().touch(self.admitted.plane().clock.now());
        match dispatch(self.admitted.plane(), &self.admitted.connection, payload) {
            Dispatched::Calling(dispatch) => self.dispatches.push(dispatch),
            Dispatched::Failed(frame) => self.outbox().reply(frame),
        }
    }

    fn is_reading(&self) -> bool {
        self.dispatches.len() < self.concurrent_dispatches && !self.outbox().is_full()
    }

    fn outbox(&self) -> &Outbox {
        &self.admitted.outbox
    }
}
