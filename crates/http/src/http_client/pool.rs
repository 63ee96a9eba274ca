//! The state and decisions of one pool: which caller gets a connection, and when another one is opened. No I/O and no
//! clock.
//!
//! Another HTTP/1.1 connection is opened when more callers wait than connections are being opened, the maximum is not
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

/// Most calls that wait for a connection to one backend. One more is refused as overloaded.
pub(super) const WAITERS_MAX: usize = 10_000;

/// Number of waiting calls from which a backend is saturated: another call would wait too long behind them.
pub(super) const CROWD: usize = 1_000;

/// Number of waiting calls down to which a saturated backend stays saturated. Until then, requests that have piled up
/// in sockets meanwhile are refused, rather than answered late.
pub(super) const CROWD_GONE: usize = 50;

/// Idle timeout of a connection if neither its backend nor the configuration sets one. Node.js and uvicorn close after
/// 5 s, and a request that crosses with such a close is lost.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// An HTTP/1.1 connection that carries no request.
pub(super) struct Http1Connection {
    pub(super) sender: http1::SendRequest<Body>,

    pub(super) writes: Writes,

    /// Handle that ends the driver, and so closes the socket at once.
    pub(super) driver: AbortHandle,

    /// True once the backend is known to have accepted the connection.
    pub(super) proven: bool,
}

/// A handle on an HTTP/2 connection. Each of its calls holds one.
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

/// The result for which a caller waits.
pub(super) type Outcome = Result<Lease, Arc<ConnectError>>;

/// A connection that has left the pool. It is dropped after the lock is released, since a drop wakes other tasks.
#[expect(dead_code, reason = "held only to be dropped")]
pub(super) enum Discarded {
    Http1(Http1Connection),
    Http2(Http2Connection),
}

/// The state of one backend's connections. Idle connections and waiters never exist at the same time.
pub(super) struct Pool {
    idle: Vec<Idle>,

    /// The earliest time at which an idle connection can expire.
    idle_until_min: Option<Instant>,
    waiters: VecDeque<Waiter>,
    next_ticket: u64,

    /// Number of sockets that exist or are being opened. A socket counts until it is dropped.
    open: usize,
    window: Window,

    /// True if one connection is opened and shared by all calls. False for good once a backend has chosen HTTP/1.1 by
    /// ALPN.
    shares: bool,
    shared: Option<SharedConnection>,
    generations: u64,

    discarded: Vec<Discarded>,
}

/// The numbers of connections and callers of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sockets that are idle, in use or being opened.
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

    /// Returns the most recently used idle connection that is still open, if there is one.
    pub(super) fn take_idle(&mut self, now: Instant) -> Option<Http1Connection> {
        while let Some(Idle { connection, until }) = self.idle.pop() {
            if until > now && !connection.sender.is_closed() {
                return Some(connection);
            }
            self.discard(connection);
        }
        None
    }

    /// Adds a call to the shared connection, if there is one. Returns the connection and its generation.
    pub(super) fn take_shared(&mut self) -> Option<(Http2Connection, u64)> {
        if self.shared.as_ref()?.connection.sender.is_closed() {
            self.discard_shared();
        }
        let shared = self.shared.as_mut()?;
        shared.calls += 1;
        Some((shared.connection.clone(), shared.generation))
    }

    /// Returns true if the backend is saturated; `was_saturated` is the previous result.
    pub(super) fn is_saturated(&self, was_saturated: bool) -> bool {
        self.waiters.len() > if was_saturated { CROWD_GONE } else { CROWD - 1 }
    }

    /// Puts a caller at the end of the queue. Returns its ticket and the channel of its result, or `None` if the queue
    /// is full.
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

    /// Removes a caller that has given up.
    pub(super) fn leave(&mut self, ticket: u64) {
        if let Ok(index) = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            self.waiters.remove(index);
        }
    }

    /// Gives a free connection to the caller that has waited longest. If no caller waits, keeps the connection idle
    /// until `idle_until`.
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

    /// Makes a new HTTP/2 connection the shared one, and gives it to all callers that wait.
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

    /// Notes that a call has left the shared connection. Without `idle_until`, the connection ends with its last call.
    pub(super) fn leave_shared(&mut self, generation: u64, idle_until: Option<Instant>) {
        let Some(shared) = self.shared.as_mut().filter(|shared| shared.generation == generation) else { return };
        shared.calls -= 1;
        match idle_until {
            Some(until) => shared.idle_until = until,
            None if shared.calls == 0 => self.discard_shared(),
            None => {}
        }
    }

    /// Drops the shared connection, which takes no more calls.
    pub(super) fn retire_shared(&mut self, generation: u64) {
        if self.shared.as_ref().is_some_and(|shared| shared.generation == generation) {
            self.discard_shared();
        }
    }

    /// Begins a connection attempt, if one is due. Returns the attempt's deadline and the next ticket.
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

    /// Notes that the TCP connect of an attempt takes longer than expected.
    pub(super) fn attempt_is_slow(&mut self) {
        self.window.attempt_is_slow();
    }

    /// Notes that an attempt has ended, with or without a connection.
    pub(super) fn attempt_ended(&mut self, slow: bool, now: Instant) {
        self.window.attempt_ends(slow, now);
    }

    /// Notes that an HTTP/1.1 connection was opened.
    pub(super) fn opened(&mut self, connection: &Http1Connection) {
        self.shares = false;
        if !connection.proven {
            self.window.unproven_opens();
        }
    }

    /// Fails the callers that a failed attempt concerns. That is the caller that has waited longest, if no other
    /// attempt is under way for it. If no connection is open, the backend is down, and all callers that waited when the
    /// attempt began fail. A timeout does not fail a caller whose deadline is later than the attempt's.
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
                // A caller that has just left is not the one that failed.
                let left = waiter.reply.send(Err(Arc::clone(&error))).is_err();
                if !down && !left {
                    return;
                }
            }
        }
    }

    /// Fails all callers that wait, by closing their channels.
    pub(super) fn dismiss_waiters(&mut self) {
        self.waiters.clear();
    }

    /// Notes that the first answer on a connection has begun.
    pub(super) fn proved(&mut self, stays_open: bool, max_connections: usize, now: Instant) {
        self.window.proved(stays_open, max_connections, now);
    }

    /// Notes that a socket has been dropped.
    pub(super) fn closed(&mut self) {
        self.open -= 1;
    }

    /// Drops a connection that is not, or no longer, in the pool.
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

    /// Does what is due at `now`: drops connections that have been idle too long, and widens the window after a stall.
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

    /// Returns the time at which [`Pool::tend`] has something to do next, if any.
    pub(super) fn next_tending(&self, max_connections: usize) -> Option<Instant> {
        let idle = self.idle_until_min.filter(|_until| !self.idle.is_empty());
        let shared = self.shared.as_ref().filter(|shared| shared.calls == 0).map(|shared| shared.idle_until);
        let stall = self.is_held_back(max_connections).then(|| self.window.stalls_at());
        [idle, shared, stall].into_iter().flatten().min()
    }

    /// Returns true if only the window keeps a connection from being opened.
    fn is_held_back(&self, max_connections: usize) -> bool {
        !self.shares && self.wants_connection(max_connections) && self.window.is_full()
    }
}
