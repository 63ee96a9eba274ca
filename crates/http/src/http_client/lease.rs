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

/// A connection that is lent to one call. A lease that is dropped before a request was sent gives the connection back
/// to the pool. A lease that is dropped later, without [`Lease::finish`], closes an HTTP/1.1 connection, since its
/// state is unknown.
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
    /// The connection was given back.
    None,
}

/// The error of a request that got no answer.
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    pub(super) was_processed: Processed,
}

/// The knowledge about a request that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processed {
    /// The backend has certainly not processed it. It can be sent again.
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

    /// Takes the connection out of a lease that no caller received, under the lock of the pool.
    pub(super) fn into_http1(mut self) -> Option<Http1Connection> {
        match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::Http1(connection) => Some(connection),
            Connection::Http2 { .. } | Connection::None => None,
        }
    }

    /// Drops a lease that no caller received, under the lock of the pool.
    pub(super) fn disarm(mut self) {
        self.connection = Connection::None;
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.connection, Connection::Http2 { .. })
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// Returns [`Unanswered`] if the connection ended first.
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

    /// Notes that the backend has answered, so it has accepted this connection. `stays_open` is false if the backend
    /// closes the connection after the answer.
    pub(super) fn note_answer(&mut self, stays_open: bool) {
        if let Connection::Http1(connection) = &mut self.connection
            && !connection.proven
        {
            connection.proven = true;
            self.backend.proved(stays_open);
        }
    }

    /// Drops a connection that did not take the request and takes no other.
    pub(super) fn retire(mut self) {
        match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::Http1(connection) => self.backend.discard_with_idle(connection),
            Connection::Http2 { connection: _, generation } => self.backend.retire_shared(generation),
            Connection::None => {}
        }
    }

    /// Gives the connection back for another call, since the whole answer was read. `keep_alive` is the idle timeout
    /// that the backend announced, if it did.
    pub(super) fn finish(mut self, keep_alive: Option<Duration>, deadline: Instant) {
        let Connection::Http1(connection) = &self.connection else { return };
        if connection.sender.is_ready() {
            self.give_back(keep_alive);
        } else if !connection.sender.is_closed() {
            // The driver has not noticed the end of the answer yet, or still sends the request. It may do so until the
            // call's deadline.
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

    /// Drops a connection, which then ends by itself.
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

/// Judges a failed request. `written` is true if anything was written to its connection since the request was handed
/// over.
fn unanswered(mut error: TrySendError<Request<Body>>, written: bool) -> Unanswered {
    // hyper hands back what it has not begun to write.
    let is_handed_back = error.take_message().is_some();
    let error = error.into_error();
    let was_processed = if is_handed_back || !written || is_refused(&error) { Processed::No } else { Processed::Maybe };
    Unanswered { error, was_processed }
}

/// Recognizes the errors with which an HTTP/2 backend declares that it has not processed the request: it refused the
/// stream, or sent a GOAWAY whose last stream is below this one. h2 reports a GOAWAY only to the streams above its last
/// stream.
///
/// Source: RFC 9113, sections 6.8 and 8.7.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    let is_refusal = |cause: &h2::Error| {
        cause.is_go_away() || (cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    };
    cause.is_some_and(|cause| cause.is_remote() && is_refusal(cause))
}
