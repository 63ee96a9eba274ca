use std::sync::Arc;

use http::HeaderValue;
use tokio::time::Instant;
use tracing::debug;

use crate::data_plane::answer_actions::{act, name_user};
use crate::data_plane::context::labels;
use crate::data_plane::disconnect::attempt::report;
use crate::data_plane::{DataPlane, Live};
use tidegate_connections::groups::Actions;
use tidegate_connections::session::{Closing, Outbox};
use tidegate_core::limits::{Bucket, Slot};
use tidegate_core::request_context::Connection;
use tidegate_core::trace_context::TraceContext;
use tidegate_resources::LoggingLevel;

/// A connection that the registry knows. Dropping it ends the connection, if it has not ended yet, and sends its
/// `$disconnect`.
pub(super) struct Registered {
    pub(super) plane: Arc<DataPlane>,
    pub(super) connection: Arc<Connection>,
}

/// A client that waits for the answer to its `$connect`. Dropping it ends the connection with code 1006 and sends its
/// `$disconnect`.
pub(super) struct Connecting {
    registered: Registered,
    live: Arc<Live>,
    outbox: Arc<Outbox>,
    pub(super) cold: Box<ColdState>,
}

/// An accepted client. Dropping it without running its session ends the connection with code 1006 and sends its
/// `$disconnect`.
pub struct Admitted {
    pub(super) registered: Registered,
    pub(super) live: Arc<Live>,
    pub(super) outbox: Arc<Outbox>,
    /// True while the connection is counted as open.
    is_open: bool,
    pub(super) cold: Box<ColdState>,
}

/// The state that an idle session does not need, in a box so that its task is small.
pub(super) struct ColdState {
    pub(super) subprotocol: Option<HeaderValue>,
    /// The rate limit of this connection's messages.
    pub(super) bucket: Bucket,
    /// The connection's place among those of its client's address, if the listener has not counted it.
    _slot: Option<Slot>,
}

impl Registered {
    fn end(&self, closing: Closing) {
        self.plane.registry.end(&self.connection.id, closing);
        self.plane.groups.end(&self.connection);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.end(Closing::lost());
        // A refused connection is not in the registry any more. If this node was fenced, other nodes may have the
        // connection now and send its event.
        if self.plane.registry.get_ended(&self.connection.id).is_some() {
            report(&self.plane, &self.connection);
        }
    }
}

impl Connecting {
    /// Wraps a connection that was just put into the registry. `slot` is its place among those of its client's address.
    pub(super) fn new(
        plane: &Arc<DataPlane>,
        live: &Arc<Live>,
        connection: &Arc<Connection>,
        slot: Option<Slot>,
    ) -> Self {
        Connecting {
            registered: Registered { plane: Arc::clone(plane), connection: Arc::clone(connection) },
            live: Arc::clone(live),
            outbox: Arc::new(Outbox::new(live.settings.limits.send_buffer_bytes, connection.connected_at)),
            cold: Box::new(ColdState { subprotocol: None, bucket: Bucket::new(Instant::now()), _slot: slot }),
        }
    }

    /// Opens the connection: from now on posts reach it. Then carries out the `actions` of its backend. Returns `None`
    /// if the node may not serve the connection; then the backend gets a `$disconnect`.
    pub(super) async fn open(self, actions: Actions, trace: TraceContext) -> Option<Admitted> {
        let Connecting { registered, live, outbox, cold } = self;
        let Registered { plane, connection } = &registered;
        if !plane.registry.gate().opened_in_time().await {
            registered.end(Closing::isolated());
            return None;
        }
        if !plane.registry.open(&connection.id, Arc::clone(&outbox)) {
            registered.end(Closing::fenced());
            return None;
        }
        plane.telemetry.metrics.opened(&labels(connection));
        let admitted = Admitted { registered, live, outbox, is_open: true, cold };
        let Registered { plane, connection } = &admitted.registered;
        name_user(plane, &admitted.live, connection).await;
        act(plane, &admitted.live, connection, actions, trace).await;
        debug!(connection_id = %connection.id, "connected");
        Some(admitted)
    }

    /// Removes the connection, because it was refused. No trace of it remains.
    pub(super) fn refuse(self) {
        self.registered.plane.registry.refuse(&self.registered.connection.id);
    }
}

impl Admitted {
    /// Takes the subprotocol that the backend chose, for the 101. The gateway never chooses one itself.
    pub fn take_subprotocol(&mut self) -> Option<HeaderValue> {
        self.cold.subprotocol.take()
    }

    /// Returns the level of the connection's execution log.
    pub(super) fn logging_level(&self) -> LoggingLevel {
        let Connection { api_id, stage, .. } = &*self.registered.connection;
        let stage = self.live.stage(api_id, stage);
        stage.map(|(_, stage)| stage.telemetry.default.logging_level).unwrap_or_default()
    }

    /// Ends the connection: it is no longer served, and posts to it get 410. Its `$disconnect` is sent when this value
    /// is dropped.
    pub(super) fn end(&mut self, closing: Closing) {
        let Registered { plane, connection } = &self.registered;
        if std::mem::take(&mut self.is_open) {
            plane.telemetry.metrics.closed(&labels(connection), closing.cause.name(), closing.code);
        }
        self.registered.end(closing);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.end(Closing::lost());
    }
}
