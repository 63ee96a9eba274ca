//! [`Lease`]: the right of one call to one connection, and what becomes of the connection afterwards.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use tokio::time::{Instant, timeout_at};

use super::backend::Backend;
use super::connect::Body;
use super::pool::Http1Connection;

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
        sender: http2::SendRequest<Body>,
        generation: u64,
    },
    /// Given back.
    None,
}

impl Lease {
    pub(super) fn http1(backend: Arc<Backend>, connection: Http1Connection) -> Self {
        Lease { backend, connection: Connection::Http1(connection), used: false }
    }

    pub(super) fn http2(backend: Arc<Backend>, sender: http2::SendRequest<Body>, generation: u64) -> Self {
        Lease { backend, connection: Connection::Http2 { sender, generation }, used: false }
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
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.used = true;
        match &mut self.connection {
            Connection::Http1(connection) => connection.sender.try_send_request(request).await,
            Connection::Http2 { sender, .. } => sender.try_send_request(request).await,
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

    /// The connection turned out to be closed before it took the request.
    pub(super) fn retire(mut self) {
        match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::Http1(connection) => self.backend.discard_with_idle(connection),
            Connection::Http2 { sender: _, generation } => self.backend.retire_shared(generation),
            Connection::None => {}
        }
    }

    /// The whole answer was read: the connection may serve another call, for `keep_alive` from now.
    pub(super) fn finish(mut self, keep_alive: Duration, deadline: Instant) {
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

    fn give_back(&mut self, keep_alive: Duration) {
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
            Connection::Http1(connection) => self.backend.give(connection, super::pool::IDLE_TIMEOUT),
            // hyper resets the stream when the future of the answer, or its body, is dropped.
            Connection::Http2 { sender: _, generation } => self.backend.leave_shared(generation),
            Connection::None => {}
        }
    }
}
