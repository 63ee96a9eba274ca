//! [`Lease`]: the right of one call to one connection, and what becomes of the connection afterwards.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::backend::Backend;
use super::connect::Body;
use super::pool::{Http1Connection, Http2Connection};

/// A connection in the hands of one call. Dropped before a request was sent, the connection goes back to the pool;
/// dropped later, without [`Lease::finish`], an HTTP/1.1 connection is closed: its state is unknown.
pub(super) struct Lease {
    backend: Arc<Backend>,
    connection: Connection,
    used: bool,
}

enum Connection {
    Http1(Http1Connection),
    Http2 {
        connection: Http2Connection,
        generation: u64,
    },
    /// Given back.
    None,
}

/// A request that got no answer.
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    pub(super) was_processed: Processed,
}

/// The most that is known of a request at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processed {
    /// Certainly not. It can be sent again.
    No,
    Maybe,
}

impl Lease {
    pub(super) fn http1(backend: Arc<Backend>, connection: Http1Connection) -> Self {
        Lease { backend, connection: Connection::Http1(connection), used: false }
    }

    pub(super) fn http2(backend: Arc<Backend>, connection: Http2Connection, generation: u64) -> Self {
        Lease { backend, connection: Connection::Http2 { connection, generation }, used: false }
    }

    /// Takes the connection out of a lease that nobody received, under the lock of the pool.
    pub(super) fn into_http1(mut self) -> Option<Http1Connection> {
        match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::Http1(connection) => Some(connection),
            Connection::Http2 { .. } | Connection::None => None,
        }
    }

    /// Drops a lease that nobody received, under the lock of the pool.
    pub(super) fn disarm(mut self) {
        self.connection = Connection::None;
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.connection, Connection::Http2 { .. })
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        self.used = true;
        match &mut self.connection {
            Connection::Http1(Http1Connection { sender, writes, .. }) => {
                let before = writes.count();
                let answer = sender.try_send_request(request).await;
                answer.map_err(|error| unanswered(error, writes.count() != before))
            }
            Connection::Http2 { connection: Http2Connection { sender, writes }, .. } => {
                let before = writes.count();
                let answer = sender.try_send_request(request).await;
                answer.map_err(|error| unanswered(error, writes.count() != before))
            }
            Connection::None => unreachable!("only what consumes the lease takes its connection"),
        }
    }

    /// The backend has answered: it has accepted this connection.
    pub(super) fn note_answer(&mut self, stays_open: bool) {
        if let Connection::Http1(connection) = &mut self.connection
            && !connection.proven
        {
            connection.proven = true;
            self.backend.proved(stays_open);
        }
    }

    /// The connection took no request, and will take none.
    pub(super) fn retire(mut self) {
        match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::Http1(connection) => self.backend.discard_with_idle(connection),
            Connection::Http2 { connection: _, generation } => self.backend.retire_shared(generation),
            Connection::None => {}
        }
    }

    /// The whole answer was read: the connection may serve another call. The backend keeps it for `keep_alive` from now, if
    /// it says so.
    pub(super) fn finish(mut self, keep_alive: Option<Duration>, deadline: Instant) {
        let Connection::Http1(connection) = &self.connection else { return };
        if connection.sender.is_ready() {
            self.give_back(keep_alive);
        } else if !connection.sender.is_closed() {
            // The driver has yet to notice the end of the answer, or still sends the request: it has as much time
            // for that as the call had.
            let backend = Arc::clone(&self.backend);
            backend.shared().tasks.spawn(async move {
                let Connection::Http1(connection) = &mut self.connection else { return };
                if let Ok(Ok(())) = timeout_at(deadline, connection.sender.ready()).await {
                    self.give_back(keep_alive);
                }
            });
        } else {
            self.give_up();
        }
    }

    fn give_back(&mut self, keep_alive: Option<Duration>) {
        if let Connection::Http1(connection) = std::mem::replace(&mut self.connection, Connection::None) {
            self.backend.give(connection, keep_alive);
        }
    }

    /// Lets a connection end by itself.
    fn give_up(&mut self) {
        if let Connection::Http1(connection) = std::mem::replace(&mut self.connection, Connection::None) {
            self.backend.discard(connection);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::Http1(connection) if self.used => {
                connection.driver.abort();
                self.backend.discard(connection);
            }
            Connection::Http1(connection) => self.backend.give(connection, None),
            // hyper resets the stream when the future of the answer, or its body, is dropped.
            Connection::Http2 { connection: _, generation } => self.backend.leave_shared(generation),
            Connection::None => {}
        }
    }
}

/// Tells what became of a request, by what was `written` to its connection since it was handed over.
fn unanswered(mut error: TrySendError<Request<Body>>, written: bool) -> Unanswered {
    // hyper hands back what it has not begun to write.
    let is_handed_back = error.take_message().is_some();
    let error = error.into_error();
    let was_processed = if is_handed_back || !written || is_refused(&error) { Processed::No } else { Processed::Maybe };
    Unanswered { error, was_processed }
}

/// Recognizes the errors by which an HTTP/2 backend says that it has not processed the request: it refused the stream, or
/// went away with a last stream before this one. h2 hands a GOAWAY to the streams above its last one alone.
///
/// Source: RFC 9113, sections 6.8 and 8.7.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    let is_refusal = |cause: &h2::Error| {
        cause.is_go_away() || (cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    };
    cause.is_some_and(|cause| cause.is_remote() && is_refusal(cause))
}
