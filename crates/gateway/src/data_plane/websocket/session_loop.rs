use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream as _, StreamExt as _};
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{Instrument as _, Span, debug};

use super::admitted::{Admitted, Registered};
use super::message::{Dispatch, Dispatched, Reply, dispatch};
use crate::data_plane::gateway_response::{TokenNotice, token_frame};
use tidegate_connections::session::{Closing, Deadlines, Due, Incoming, Outbox, Socket, SocketSettings, TokenDeadline};
use tidegate_core::clock::Timestamp;
use tidegate_core::id::EventId;
use tidegate_http::transport::Connection;
use tidegate_integration::Payload;
use tidegate_telemetry::execution_log;

/// Number of messages in a row that are refused because the backend is saturated before reading stops.
const REFUSALS_MAX: u8 = 8;

/// Time for which reading then stops if no dispatch is in flight whose reply could be waited for.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// Runs one session, from the 101 to the end of its last dispatch. One task does all of it, so only the outbox needs a
/// lock.
///
/// Reading stops while as many dispatches as allowed are in flight, or while the outbox is full. Writing never waits
/// for a backend. While a backend of the stage is saturated, reading goes on and messages beyond the allowed dispatches
/// are refused: the buffers of one socket hold hundreds of messages, and those of thousands of sockets hold more work
/// than can be done in time.
pub async fn serve<S: Connection>(admitted: Admitted, io: S, already_read: Bytes) {
    // The beginning and the end are boxed, so that the task of an idle session has only its loop.
    let mut session = Box::pin(Session::new(admitted, io, already_read)).await;
    let closing = session.run().await;
    let span = session.span.take().map_or_else(Span::none, |span| *span);
    Box::pin(session.finish(closing).instrument(span)).await;
}

struct Session<S> {
    admitted: Admitted,
    socket: Socket<S>,
    dispatches: FuturesUnordered<Dispatch>,
    deadlines: Deadlines,
    /// Span of the execution log. `None` if there is no such log, so that an idle session needs no memory for it.
    span: Option<Box<Span>>,
    /// Number of frames that were written at the last check.
    sent: u64,
    /// True if data waited to be written at the last check.
    writing: bool,
    /// Number of messages in a row that were refused because the backend is saturated.
    refusals: u8,
    /// Notification of the renewal of the serving lease, while that has run out.
    hold: Option<Pin<Box<OwnedNotified>>>,
}

/// The reasons for which a session wakes up.
enum Step {
    Incoming(Incoming),
    Replied(Reply),
    Timer,
    End(Closing),
}

impl<S: Connection> Session<S> {
    async fn new(admitted: Admitted, io: S, already_read: Bytes) -> Self {
        let limits = &admitted.live.settings.limits;
        let settings = SocketSettings { message_max_bytes: limits.message_bytes, frame_max_bytes: limits.frame_bytes };
        let deadlines = Deadlines::new(limits, &admitted.live.settings.keep_alive, Instant::now(), rand::random());
        let socket = Socket::new(io, already_read, Arc::clone(&admitted.outbox), settings).await;
        let span = execution_log::connection_span(admitted.logging_level(), &admitted.registered.connection);
        let span = if span.is_disabled() { None } else { Some(Box::new(span)) };
        let mut session = Session {
            admitted,
            socket,
            dispatches: FuturesUnordered::new(),
            deadlines,
            span,
            sent: 0,
            writing: false,
            refusals: 0,
            hold: None,
        };
        session.note_token();
        session
    }

    /// Serves the client until something ends the connection.
    async fn run(&mut self) -> Closing {
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            let step = poll_fn(|cx| self.poll_step(cx, timer.as_mut())).await;
            match step {
                Step::Incoming(Incoming::Text(text)) => self.message(Payload::Text(text), timer.as_mut()),
                Step::Incoming(Incoming::Binary(bytes)) => self.message(Payload::Binary(bytes), timer.as_mut()),
                // A ping shows that the client wants to stay.
                Step::Incoming(Incoming::Ping) => self.deadlines.data(Instant::now()),
                Step::Incoming(Incoming::Pong) => {}
                Step::Incoming(Incoming::End(closing)) | Step::End(closing) => return closing,
                Step::Replied(Reply { frame, refreshed, refused }) => {
                    match refused {
                        true => self.note_refusal(timer.as_mut()),
                        false => self.refusals = 0,
                    }
                    if let Some(frame) = frame {
                        self.outbox().reply(frame);
                    }
                    if refreshed {
                        self.note_token();
                        timer.as_mut().reset(Instant::now());
                    }
                }
                Step::Timer => {
                    self.refusals = 0;
                    let (now, observed) = (Instant::now(), self.socket.observe(self.is_reading()));
                    match self.deadlines.due(now, observed) {
                        Due::Nothing { until } => timer.as_mut().reset(until),
                        Due::Ping => self.socket.ping(),
                        Due::TokenNotice => self.tell_of_token(),
                        Due::Look => self.deadlines.looked(now, observed, self.socket.traffic()),
                        Due::Close(closing) => return closing,
                    }
                }
            }
        }
    }

    /// Ends the connection and sends the client the close frame of `closing`.
    async fn finish(self, closing: Closing) {
        let Session { mut admitted, mut socket, mut dispatches, .. } = self;
        debug!(
            connection_id = %admitted.registered.connection.id, code = closing.code, reason = &*closing.reason,
            cause = closing.cause.name(), "disconnected"
        );
        let aborting = admitted.registered.plane.lifecycle.aborting().clone();
        admitted.end(closing.clone());
        socket.close(&closing).await;
        // Messages that the client sent before it left still reach the backend. Its `$disconnect` follows them.
        let last_dispatches = async {
            while dispatches.next().await.is_some() {}
            drop(admitted);
        };
        tokio::join!(last_dispatches, aborting.run_until_cancelled(socket.linger(&closing)));
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Step> {
        if !self.admitted.registered.plane.registry.may_serve(&self.admitted.registered.connection.id) {
            if let Poll::Ready(closing) = self.outbox().poll_cut(cx) {
                return Poll::Ready(Step::End(closing));
            }
            ready!(self.poll_hold(cx));
        }
        // Most of the cost of a refusal is its write, so refusals that come together are written together.
        if self.refusals > 0
            && self.is_reading()
            && let Poll::Ready(incoming) = self.socket.poll_incoming(cx)
        {
            return Poll::Ready(Step::Incoming(incoming));
        }
        if let Poll::Ready(closing) = self.socket.poll_send(cx) {
            return Poll::Ready(Step::End(closing));
        }
        if self.socket.frames_sent() != self.sent {
            self.sent = self.socket.frames_sent();
            self.deadlines.data(Instant::now());
        }
        if let Poll::Ready(Some(reply)) = Pin::new(&mut self.dispatches).poll_next(cx) {
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
        // The timer may be set for much later, and a stall that begins now has its own deadline.
        if stalled || timer.poll(cx).is_ready() {
            return Poll::Ready(Step::Timer);
        }
        Poll::Pending
    }

    /// Waits for a valid serving lease. Until then nothing is dispatched and nothing is written.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let gate = self.admitted.registered.plane.registry.gate();
        loop {
            let opening = self.hold.get_or_insert_with(|| Box::pin(gate.next_opening()));
            let opening = opening.as_mut().poll(cx);
            // Checked after the notification is polled, so that no renewal is missed.
            if gate.is_open() {
                self.hold = None;
                return Poll::Ready(());
            }
            ready!(opening);
            self.hold = None;
        }
    }

    fn message(&mut self, payload: Payload, timer: Pin<&mut Sleep>) {
        self.deadlines.data(Instant::now());
        self.outbox().touch(self.admitted.registered.plane.clock.now());
        let has_room = self.has_room();
        let Admitted { registered: Registered { plane, connection }, cold, .. } = &mut self.admitted;
        let dispatched = {
            // The span of the message is a child of the connection's span.
            let _entered = self.span.as_ref().map(|span| span.enter());
            dispatch(plane, connection, &mut cold.bucket, payload, has_room)
        };
        match dispatched {
            Dispatched::Calling(dispatch) => self.dispatches.push(dispatch),
            Dispatched::Failed(frame) => self.outbox().reply(frame),
        }
        if !has_room {
            self.note_refusal(timer);
        }
    }

    /// Notes that a message was refused because the backend is saturated. After too many in a row, reading stops until
    /// a dispatch in flight is answered, or for [`REFUSAL_PAUSE`] if there is none: thousands of sockets full of
    /// messages that will be refused would leave no time for anything else.
    fn note_refusal(&mut self, timer: Pin<&mut Sleep>) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals >= REFUSALS_MAX && self.dispatches.is_empty() {
            timer.reset(Instant::now() + REFUSAL_PAUSE);
        }
    }

    /// Sets the deadlines of the client's token, if it has one.
    fn note_token(&mut self) {
        let principal = self.admitted.registered.connection.principal.load();
        let expiry = principal.as_ref().and_then(|principal| principal.expiry);
        let (now, wall) = (Instant::now(), self.admitted.registered.plane.clock.now());
        let instant = |at: Timestamp| now + Duration::from_millis(at.millis().saturating_sub(wall.millis()));
        self.deadlines.set_token(expiry.map(|expiry| TokenDeadline {
            expires: instant(expiry.at),
            notice: expiry.notice_at.map(instant),
            close_code: expiry.close_code,
        }));
    }

    fn tell_of_token(&self) {
        let connection = &self.admitted.registered.connection;
        let expiry = connection.principal.load().as_ref().and_then(|principal| principal.expiry);
        if let Some(expiry) = expiry {
            self.outbox().reply(token_frame(TokenNotice::Expires, connection.id, EventId::random(), expiry.at));
        }
    }

    fn is_reading(&self) -> bool {
        self.refusals < REFUSALS_MAX && (self.has_room() || self.is_saturated()) && !self.outbox().is_full()
    }

    /// Returns true if one more dispatch is allowed.
    fn has_room(&self) -> bool {
        self.dispatches.len() < usize::from(self.admitted.live.settings.limits.concurrent_dispatches)
    }

    /// Returns true if a backend of the stage is saturated.
    fn is_saturated(&self) -> bool {
        let Registered { plane, connection } = &self.admitted.registered;
        // Fast path: sessions at their maximum of dispatches check this at every wake-up, and nearly always end here.
        if !plane.integrations.is_saturated() {
            return false;
        }
        let live = plane.live();
        let stage = live.deployments.api(&connection.api_id).and_then(|api| api.stage(&connection.stage));
        stage.is_some_and(|stage| stage.is_saturated())
    }

    fn outbox(&self) -> &Outbox {
        &self.admitted.outbox
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// Largest size of an idle connection's task, without its buffers, in bytes.
    const TASK_MAX_BYTES: usize = 1024;

    #[test]
    fn an_idle_session_is_a_small_task() {
        fn size_of_output<F: Fn(Admitted, TcpStream, Bytes) -> R, R>(_: F) -> usize {
            std::mem::size_of::<R>()
        }
        let size = size_of_output(serve::<TcpStream>);
        assert!(size <= TASK_MAX_BYTES, "{size} bytes");
    }
}
