//! [`Backend`]: one address with its pool. It locks the pool for each decision, and carries the decision out once the
//! lock is released.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use rustls::pki_types::ServerName;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

pub use super::pool::Counts;

use super::client::Shared;
use super::connect::{ConnectError, Established, connect};
use super::keeper::Keeper;
use super::lease::Lease;
use super::pool::{Http1Connection, IDLE_TIMEOUT, Outcome, Pool};
use super::{CallError, keeper};
use tidegate_core::lock::lock;

/// A destination of calls: scheme, host, port, protocol, maximum of connections. It comes from [`HttpClient::backend`].
///
/// [`HttpClient::backend`]: super::HttpClient::backend
pub struct Backend {
    shared: Arc<Shared>,
    address: Address,
    http2: bool,
    max_connections: AtomicUsize,

    /// Longest time that a connection is kept idle, in milliseconds; [`UNSET`] if the configuration sets none.
    connection_idle_millis: AtomicU64,
    state: Mutex<State>,

    /// True while more calls wait for a connection than should be added to. Written under the lock of `state`.
    saturated: AtomicBool,

    /// Wakes the keeper.
    keeper_wake: Notify,
}

/// The value of a time in milliseconds that is not set.
const UNSET: u64 = u64::MAX;

struct State {
    pool: Pool,
    keeper: Keeper,
}

/// The parsed address of a backend.
pub(super) struct Address {
    pub(super) authority: Authority,
    pub(super) host_header: HeaderValue,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Address {
    pub(super) fn new(
        authority: Authority,
        host: String,
        port: u16,
        tls: Option<(TlsConnector, ServerName<'static>)>,
    ) -> Self {
        let host_header =
            HeaderValue::from_str(authority.as_str()).expect("an authority is made of visible ASCII characters");
        Address { authority, host_header, host, port, tls }
    }
}

impl Backend {
    pub(super) fn new(shared: Arc<Shared>, address: Address, http2: bool, max_connections: usize) -> Self {
        let state = State { pool: Pool::new(http2, Instant::now()), keeper: Keeper::default() };
        Backend {
            shared,
            address,
            http2,
            max_connections: AtomicUsize::new(max_connections.max(1)),
            connection_idle_millis: AtomicU64::new(UNSET),
            state: Mutex::new(state),
            saturated: AtomicBool::new(false),
            keeper_wake: Notify::new(),
        }
    }

    /// Returns the scheme, host and port as they were configured: `http://localhost:9000`.
    pub fn origin(&self) -> String {
        let scheme = if self.address.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address.authority)
    }

    /// Returns the number of connections and of calls that wait for one.
    pub fn counts(&self) -> Counts {
        lock(&self.state).pool.counts()
    }

    /// Returns true if so many calls wait for a connection that callers should not add more.
    pub fn is_saturated(&self) -> bool {
        self.saturated.load(Ordering::Relaxed)
    }

    /// Removes the configured idle timeout. From now on the backend's `Keep-Alive` decides, or else [`IDLE_TIMEOUT`].
    pub fn reset_connection_idle(&self) {
        self.connection_idle_millis.store(UNSET, Ordering::Relaxed);
    }

    /// Keeps no connection idle for longer than `millis`, unless a lower value is already set. A shorter `Keep-Alive`
    /// of the backend still applies.
    pub fn lower_connection_idle(&self, millis: u32) {
        self.connection_idle_millis.fetch_min(millis.into(), Ordering::Relaxed);
    }

    pub(super) fn raise_max_connections(self: &Arc<Self>, max_connections: usize) {
        if self.max_connections.fetch_max(max_connections, Ordering::Relaxed) < max_connections {
            // Callers that wait may get a connection now.
            self.with_pool(|_pool| ());
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn http2(&self) -> bool {
        self.http2
    }

    pub(super) fn keeper_wake(&self) -> &Notify {
        &self.keeper_wake
    }

    fn max_connections(&self) -> usize {
        self.max_connections.load(Ordering::Relaxed)
    }

    /// Returns a connection for one call: an idle one, the shared one, or the next that becomes free. Dropping the
    /// future leaves the queue.
    ///
    /// # Errors
    /// Returns `Overloaded` if the queue is full, and `Unreachable` if no connection could be opened.
    pub(super) async fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Lease, CallError> {
        let now = Instant::now();
        let waiting = self.with_pool(|pool| {
            if let Some((connection, generation)) = pool.take_shared() {
                return Ok(Lease::http2(Arc::clone(self), connection, generation));
            }
            if let Some(connection) = pool.take_idle(now) {
                return Ok(Lease::http1(Arc::clone(self), connection));
            }
            Err(pool.enqueue(deadline, now))
        });
        let (ticket, receiver) = match waiting {
            Ok(lease) => return Ok(lease),
            Err(Some(queued)) => queued,
            Err(None) => return Err(CallError::Overloaded),
        };
        let mut waiting = Waiting { backend: self, ticket, receiver };
        match (&mut waiting.receiver).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => Err(CallError::Unreachable(error)),
            Err(_dropped) => Err(CallError::Unreachable(Arc::new(ConnectError::Dropped))),
        }
    }

    /// Gives a free connection to the next caller, or keeps it idle. `keep_alive` is the idle timeout that the backend
    /// announced, if it did.
    pub(super) fn give(self: &Arc<Self>, connection: Http1Connection, keep_alive: Option<Duration>) {
        let idle_until = self.idle_until(keep_alive);
        self.with_pool(|pool| {
            pool.give(connection, idle_until, |connection| Lease::http1(Arc::clone(self), connection));
        });
    }

    /// Drops a connection.
    pub(super) fn discard(self: &Arc<Self>, connection: Http1Connection) {
        self.with_pool(|pool| pool.discard(connection));
    }

    /// Drops a connection that the backend has closed, and all idle ones. The restart or timeout that closed one has
    /// most likely closed them all, and a request is sent again only once.
    pub(super) fn discard_with_idle(self: &Arc<Self>, connection: Http1Connection) {
        self.with_pool(|pool| {
            pool.discard(connection);
            pool.discard_idle();
        });
    }

    pub(super) fn leave_shared(self: &Arc<Self>, generation: u64) {
        let idle_until = self.idle_until(None);
        self.with_pool(|pool| pool.leave_shared(generation, idle_until));
    }

    pub(super) fn retire_shared(self: &Arc<Self>, generation: u64) {
        self.with_pool(|pool| pool.retire_shared(generation));
    }

    pub(super) fn proved(self: &Arc<Self>, stays_open: bool) {
        let max_connections = self.max_connections();
        self.with_pool(|pool| pool.proved(stays_open, max_connections, Instant::now()));
    }

    pub(super) fn close_idle(self: &Arc<Self>) {
        self.with_pool(Pool::discard_idle);
        self.keeper_wake.notify_one();
    }

    /// Does what is due in the pool. Returns the time of the next round, if one is needed.
    pub(super) fn tend(self: &Arc<Self>) -> Option<Instant> {
        let max_connections = self.max_connections();
        self.with_state(|state| {
            state.pool.tend(max_connections, Instant::now());
            // A connection that is opened now needs no round: it starts the keeper again if it has to.
            let next = state.pool.next_tending(max_connections);
            state.keeper.sleeps_until(next);
            next
        })
    }

    /// Returns the time at which a connection that is idle from now on is closed, or `None` if it is not kept at all.
    /// `keep_alive` is the idle timeout that the backend announced, if it did.
    fn idle_until(&self, keep_alive: Option<Duration>) -> Option<Instant> {
        let configured = match self.connection_idle_millis.load(Ordering::Relaxed) {
            UNSET => None,
            millis => Some(Duration::from_millis(millis)),
        };
        let keep_alive = idle_time(keep_alive, configured);
        let keeps = !keep_alive.is_zero() && !self.shared.closing.load(Ordering::SeqCst);
        keeps.then(|| Instant::now() + keep_alive)
    }

    fn note_crowd(&self, pool: &Pool) {
        let was_saturated = self.is_saturated();
        let is_saturated = pool.is_saturated(was_saturated);
        if is_saturated != was_saturated {
            self.saturated.store(is_saturated, Ordering::Relaxed);
            match is_saturated {
                true => self.shared.saturated.fetch_add(1, Ordering::Relaxed),
                false => self.shared.saturated.fetch_sub(1, Ordering::Relaxed),
            };
        }
    }

    fn with_pool<R>(self: &Arc<Self>, change: impl FnOnce(&mut Pool) -> R) -> R {
        self.with_state(|state| change(&mut state.pool))
    }

    /// Changes the state, then opens the connections that are due after that and makes sure that the keeper wakes in
    /// time.
    ///
    /// Tasks are spawned and values dropped after the lock is released: on a runtime that shuts down, a spawned future
    /// is dropped at once, and its drop takes the lock.
    fn with_state<R>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> R) -> R {
        let max_connections = self.max_connections();
        let mut attempts = Vec::new();
        let (result, discarded, keeper_starts) = {
            let mut state = lock(&self.state);
            let result = change(&mut state);
            while let Some((deadline, began)) = state.pool.begin_attempt(max_connections) {
                attempts.push((deadline, began));
            }
            self.note_crowd(&state.pool);
            let next = state.pool.next_tending(max_connections);
            let keeper_starts = state.keeper.starts(next, &self.keeper_wake);
            (result, state.pool.take_discarded(), keeper_starts)
        };
        drop(discarded);
        for (deadline, began) in attempts {
            let attempt = Attempt { backend: Arc::clone(self), deadline, began, slow: false, ended: false };
            let permit = Permit { backend: Arc::clone(self) };
            self.shared.tasks.spawn(connect(Arc::clone(self), attempt, permit));
        }
        if keeper_starts {
            self.shared.tasks.spawn(keeper::keep(Arc::clone(self)));
        }
        result
    }
}

/// Returns the idle timeout of a connection: the lesser of `keep_alive` (from the backend) and `configured`, or
/// [`IDLE_TIMEOUT`] if there is neither.
fn idle_time(keep_alive: Option<Duration>, configured: Option<Duration>) -> Duration {
    [keep_alive, configured].into_iter().flatten().min().unwrap_or(IDLE_TIMEOUT)
}

/// A caller in the queue.
struct Waiting<'a> {
    backend: &'a Arc<Backend>,
    ticket: u64,
    receiver: oneshot::Receiver<Outcome>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A lease that has been sent already goes back to the pool when the receiver is dropped, after this.
        self.backend.with_pool(|pool| pool.leave(self.ticket));
    }
}

/// The place of one socket under the backend's maximum. It is dropped after the socket.
pub(super) struct Permit {
    backend: Arc<Backend>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.backend.with_pool(Pool::closed);
    }
}

/// A connection that is being opened. It goes to the caller that has waited longest when it is ready.
pub(super) struct Attempt {
    backend: Arc<Backend>,
    deadline: Instant,

    /// The next ticket when the attempt began: callers with a lower one were waiting then.
    began: u64,
    slow: bool,
    ended: bool,
}

impl Attempt {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Notes that the TCP connect takes longer than expected: the listen backlog of the backend may be full.
    pub(super) fn note_slow(&mut self) {
        if !self.slow {
            self.slow = true;
            self.backend.with_pool(Pool::attempt_is_slow);
        }
    }

    pub(super) fn succeed(mut self, established: Established) {
        self.ended = true;
        let backend = &self.backend;
        let idle_until = backend.idle_until(None);
        let now = Instant::now();
        backend.with_pool(|pool| {
            pool.attempt_ended(self.slow, now);
            match established {
                Established::Http1(connection) => {
                    pool.opened(&connection);
                    pool.give(connection, idle_until, |connection| Lease::http1(Arc::clone(backend), connection));
                }
                Established::Http2(connection) => {
                    pool.share(connection, idle_until.unwrap_or(now), |connection, generation| {
                        Lease::http2(Arc::clone(backend), connection, generation)
                    });
                }
            }
        });
    }

    /// Ends the attempt with `error`. Its permit must have been dropped before.
    pub(super) fn fail(mut self, error: ConnectError) {
        self.ended = true;
        self.backend.with_pool(|pool| {
            pool.attempt_ended(self.slow, Instant::now());
            pool.attempt_failed(self.began, self.deadline, error);
        });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.ended {
            // The runtime shuts down. No caller may be left in the queue, or each attempt that is dropped would start
            // another.
            self.backend.with_pool(|pool| {
                pool.attempt_ended(self.slow, Instant::now());
                pool.dismiss_waiters();
            });
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("authority", &self.address.authority).field("http2", &self.http2).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_is_said_of_idle_connections_counts() {
        let check = |keep_alive: Option<u64>, configured: Option<u64>, expected: u64| {
            let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
            let kept = idle_time(seconds(keep_alive), seconds(configured));
            assert_eq!(kept, Duration::from_secs(expected), "{keep_alive:?} {configured:?}");
        };
        check(None, None, 4);
        check(Some(60), None, 60);
        check(Some(1), None, 1);
        check(None, Some(1), 1);
        check(None, Some(3600), 3600);
        check(Some(4), Some(1), 1);
        check(Some(4), Some(60), 4);
        check(Some(4), Some(0), 0);
    }
}
