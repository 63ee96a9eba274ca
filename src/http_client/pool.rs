//! What one pool holds and decides: who gets a connection, and when another one is opened. No I/O and no clock.
//!
//! Another HTTP/1.1 connection is opened when a caller waits for whom none is being opened, the maximum is not
//! reached, and the [`Window`] has room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::{Body, ConnectError};
use super::lease::Lease;
use super::window::Window;
use super::writes::Writes;

/// Most calls that wait for a connection to one backend; one more is refused as overloaded.
pub(super) const WAITERS_MAX: usize = 10_000;

/// Calls that wait for a connection to one backend, from which on it is saturated: more than it is worth waiting
/// behind.
pub(super) const CROWD: usize = 1_000;

/// A crowd is gone when no more than this still wait: what has piled up in sockets meanwhile is refused until then, rather
/// than answered late.
pub(super) const CROWD_GONE: usize = 50;

/// Time that an idle connection is kept if neither its backend nor the configuration says it. Node.js and uvicorn close
/// after 5 s: a request that crosses with such a close is lost.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// An HTTP/1.1 connection that carries no request.
pub(super) struct Http1Connection {
    pub(super) sender: http1::SendRequest<Body>,

    pub(super) writes: Writes,

    /// Ends the driver, and so closes the socket at once.
    pub(super) driver: AbortHandle,

    /// Whether the backend is known to have accepted it.
    pub(super) proven: bool,
}

/// An HTTP/2 connection, as each of its calls holds it.
#[derive(Clone)]
pub(super) struct Http2Connection {
    pub(super) sender: http2::SendRequest<Body>,
    pub(super) writes: Writes,
}

/// The HTTP/2 connection that all calls of a backend share.
pub(super) struct SharedConnection {
    connection: Http2Connection,
    generation: u64,
    calls: usize,
    idle_until: Instant,
}

struct Idle {
    connection: Http1Connection,
    until: Instant,
}

struct Waiter {
    ticket: u64,
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
}

/// What ends the wait of a caller.
pub(super) type Outcome = Result<Lease, Arc<ConnectError>>;

/// What has left the pool. It is dropped after the lock is released, since a drop wakes other tasks.
#[expect(dead_code, reason = "held only to be dropped")]
pub(super) enum Discarded {
    Http1(Http1Connection),
    Http2(Http2Connection),
}

/// The state of one backend's connections. Idle connections and waiters never exist at the same time.
pub(super) struct Pool {
    idle: Vec<Idle>,

    /// No idle connection expires before this.
    idle_until_min: Option<Instant>,
    waiters: VecDeque<Waiter>,
    next_ticket: u64,

    /// Sockets that exist or are being opened; falls when the socket is gone.
    open: usize,
    window: Window,

    /// Open one connection and share it. Off for good once a backend has chosen HTTP/1.1 by ALPN.
    shares: bool,
    shared: Option<SharedConnection>,
    generations: u64,

    discarded: Vec<Discarded>,
}

/// The pool's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sockets, whether idle, in use or being opened.
    pub open: usize,

    /// Connections that carry no call.
    pub idle: usize,

    /// Calls that wait for a connection.
    pub waiting: usize,
}

impl Pool {
    pub(super) fn new(http2: bool, now: Instant) -> Self {
        Pool {
            idle: Vec::new(),
            idle_until_min: None,
            waiters: VecDeque::new(),
            next_ticket: 0,
            open: 0,
            window: Window::new(now),
            shares: http2,
            shared: None,
            generations: 0,
            discarded: Vec::new(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let shared_idle = self.shared.as_ref().is_some_and(|shared| shared.calls == 0);
        Counts { open: self.open, idle: self.idle.len() + usize::from(shared_idle), waiting: self.waiters.len() }
    }

    /// The idle connection that was used last, if it is still good.
    pub(super) fn take_idle(&mut self, now: Instant) -> Option<Http1Connection> {
        while let Some(Idle { connection, until }) = self.idle.pop() {
            if until > now && !connection.sender.is_closed() {
                return Some(connection);
            }
            self.discard(connection);
        }
        None
    }

    /// One more use of the shared connection, if there is one.
    pub(super) fn take_shared(&mut self) -> Option<(Http2Connection, u64)> {
        if self.shared.as_ref()?.connection.sender.is_closed() {
            self.discard_shared();
        }
        let shared = self.shared.as_mut()?;
        shared.calls += 1;
        Some((shared.connection.clone(), shared.generation))
    }

    /// Whether a crowd of callers waits; `was_saturated` is what this said before.
    pub(super) fn is_saturated(&self, was_saturated: bool) -> bool {
        self.waiters.len() > if was_saturated { CROWD_GONE } else { CROWD - 1 }
    }

    /// Puts a caller at the end of the queue, or gives `None` if it is full.
    pub(super) fn enqueue(&mut self, deadline: Instant, now: Instant) -> Option<(u64, oneshot::Receiver<Outcome>)> {
        if self.waiters.len() >= WAITERS_MAX {
            return None;
        }
        if self.waiters.is_empty() {
            self.window.burst_begins(now);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (reply, receiver) = oneshot::channel();
        self.waiters.push_back(Waiter { ticket, deadline, reply });
        Some((ticket, receiver))
    }

    /// Forgets a caller that has given up.
    pub(super) fn leave(&mut self, ticket: u64) {
        if let Ok(index) = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            self.waiters.remove(index);
        }
    }

    /// Gives a free connection to the caller that has waited longest; with none, keeps it until `idle_until`.
    pub(super) fn give(
        &mut self,
        mut connection: Http1Connection,
        idle_until: Option<Instant>,
        lend: impl Fn(Http1Connection) -> Lease,
    ) {
        while let Some(waiter) = self.waiters.pop_front() {
            match waiter.reply.send(Ok(lend(connection))) {
                Ok(()) => return,
                Err(Ok(lease)) => match lease.into_http1() {
                    Some(returned) => connection = returned,
                    None => return,
                },
                Err(Err(_error)) => return,
            }
        }
        match idle_until {
            Some(until) => {
                self.idle_until_min = Some(self.idle_until_min.map_or(until, |min| min.min(until)));
                self.idle.push(Idle { connection, until });
            }
            None => self.discard(connection),
        }
    }

    /// Makes a new HTTP/2 connection the shared one, for all callers that wait.
    pub(super) fn share(
        &mut self,
        connection: Http2Connection,
        idle_until: Instant,
        lend: impl Fn(Http2Connection, u64) -> Lease,
    ) {
        self.discard_shared();
        self.shares = true;
        self.generations += 1;
        let generation = self.generations;
        let mut calls = 0;
        for waiter in self.waiters.drain(..) {
            match waiter.reply.send(Ok(lend(connection.clone(), generation))) {
                Ok(()) => calls += 1,
                Err(Ok(lease)) => lease.disarm(),
                Err(Err(_error)) => {}
            }
        }
        self.shared = Some(SharedConnection { connection, generation, calls, idle_until });
    }

    /// A call has left the shared connection. With no `idle_until`, the connection ends with its last call.
    pub(super) fn leave_shared(&mut self, generation: u64, idle_until: Option<Instant>) {
        let Some(shared) = self.shared.as_mut().filter(|shared| shared.generation == generation) else { return };
        shared.calls -= 1;
        match idle_until {
            Some(until) => shared.idle_until = until,
            None if shared.calls == 0 => self.discard_shared(),
            None => {}
        }
    }

    /// The shared connection takes no more calls.
    pub(super) fn retire_shared(&mut self, generation: u64) {
        if self.shared.as_ref().is_some_and(|shared| shared.generation == generation) {
            self.discard_shared();
        }
    }

    /// Counts one more connection attempt, if one is due, and says until when it may take.
    pub(super) fn begin_attempt(&mut self, max_connections: usize) -> Option<(Instant, u64)> {
        let due = if self.shares {
            self.window.connecting() == 0 && !self.waiters.is_empty()
        } else {
            self.wants_connection(max_connections) && self.window.has_room()
        };
        if !due {
            return None;
        }
        let deadline = self.waiters.front()?.deadline.max(self.waiters.back()?.deadline);
        self.window.attempt_begins();
        self.open += 1;
        Some((deadline, self.next_ticket))
    }

    fn wants_connection(&self, max_connections: usize) -> bool {
        self.waiters.len() > self.window.connecting() && self.open < max_connections
    }

    /// A TCP connect takes suspiciously long.
    pub(super) fn attempt_is_slow(&mut self) {
        self.window.attempt_is_slow();
    }

    /// An attempt has ended, well or not.
    pub(super) fn attempt_ended(&mut self, slow: bool, now: Instant) {
        self.window.attempt_ends(slow, now);
    }

    /// An HTTP/1.1 connection was opened.
    pub(super) fn opened(&mut self, connection: &Http1Connection) {
        self.shares = false;
        if !connection.proven {
            self.window.unproven_opens();
        }
    }

    /// Fails the callers whom a failed attempt concerns: the one that has waited longest if no other attempt is there
    /// for it; all that waited when the attempt began if nothing else is open, since then the backend is down. A
    /// caller that has more time than the attempt had does not fail by a timeout.
    pub(super) fn attempt_failed(&mut self, began: u64, deadline: Instant, error: ConnectError) {
        let is_timeout = error.is_timeout();
        let error = Arc::new(error);
        let down = self.open == self.window.connecting();
        while let Some(waiter) = self.waiters.front() {
            let concerned = if down { waiter.ticket < began } else { self.waiters.len() > self.window.connecting() };
            if !concerned || (is_timeout && waiter.deadline > deadline) {
                return;
            }
            if let Some(waiter) = self.waiters.pop_front() {
                // A caller that has just left needs no answer.
                let left = waiter.reply.send(Err(Arc::clone(&error))).is_err();
                if !down && !left {
                    return;
                }
            }
        }
    }

    /// Fails all callers that wait: they find their channel closed.
    pub(super) fn dismiss_waiters(&mut self) {
        self.waiters.clear();
    }

    /// The first answer on a connection has begun.
    pub(super) fn proved(&mut self, stays_open: bool, max_connections: usize, now: Instant) {
        self.window.proved(stays_open, max_connections, now);
    }

    /// A socket is gone.
    pub(super) fn closed(&mut self) {
        self.open -= 1;
    }

    /// Drops a connection that is not in the pool (any more).
    pub(super) fn discard(&mut self, connection: Http1Connection) {
        if !connection.proven {
            self.window.unproven_ends();
        }
        self.discarded.push(Discarded::Http1(connection));
    }

    fn discard_shared(&mut self) {
        if let Some(shared) = self.shared.take() {
            self.discarded.push(Discarded::Http2(shared.connection));
        }
    }

    /// Drops all idle connections.
    pub(super) fn discard_idle(&mut self) {
        for idle in std::mem::take(&mut self.idle) {
            self.discard(idle.connection);
        }
        if self.shared.as_ref().is_some_and(|shared| shared.calls == 0) {
            self.discard_shared();
        }
    }

    pub(super) fn take_discarded(&mut self) -> Vec<Discarded> {
        std::mem::take(&mut self.discarded)
    }

    /// Does what time demands: drops what has been idle too long, widens the window after a stall.
    pub(super) fn tend(&mut self, max_connections: usize, now: Instant) {
        let mut index = 0;
        while index < self.idle.len() {
            if self.idle[index].until <= now || self.idle[index].connection.sender.is_closed() {
                let idle = self.idle.remove(index);
                self.discard(idle.connection);
            } else {
                index += 1;
            }
        }
        self.idle_until_min = self.idle.iter().map(|idle| idle.until).min();
        if self.shared.as_ref().is_some_and(|shared| shared.calls == 0 && shared.idle_until <= now) {
            self.discard_shared();
        }
        if self.is_held_back(max_connections) {
            self.window.tend(max_connections, now);
        }
    }

    /// When [`Pool::tend`] has something to do next, if ever.
    pub(super) fn next_tending(&self, max_connections: usize) -> Option<Instant> {
        let idle = self.idle_until_min.filter(|_until| !self.idle.is_empty());
        let shared = self.shared.as_ref().filter(|shared| shared.calls == 0).map(|shared| shared.idle_until);
        let stall = self.is_held_back(max_connections).then(|| self.window.stalls_at());
        [idle, shared, stall].into_iter().flatten().min()
    }

    /// Whether the window alone keeps a connection from being opened.
    fn is_held_back(&self, max_connections: usize) -> bool {
        !self.shares && self.wants_connection(max_connections) && self.window.is_full()
    }
}
