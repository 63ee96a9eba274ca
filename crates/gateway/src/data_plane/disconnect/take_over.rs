//! Sends the `$disconnect` events of connections whose node is dead. The [`tidegate_connections::cluster::Reaper`] decides which
//! connections these are; here each event goes into the queue of its integration, among this node's own events.

use std::sync::Arc;

use tokio::time::Instant;

use super::attempt::report_at;
use super::retired::Receiver;
use crate::data_plane::DataPlane;
use crate::data_plane::context::labels;
use tidegate_connections::registry::claims::{ClaimedEvent, ClaimedEvents};

/// Queues the `events` of dead nodes' connections until the process aborts.
pub async fn take_over(plane: Arc<DataPlane>, mut events: ClaimedEvents) {
    let aborting = plane.lifecycle.aborting().clone();
    while let Some(Some(event)) = aborting.run_until_cancelled(events.recv()).await {
        queue(&plane, event);
    }
}

fn queue(plane: &Arc<DataPlane>, ClaimedEvent { id, connecting }: ClaimedEvent) {
    let Some(ended) = plane.registry.get_ended(&id) else { return };
    plane.telemetry.metrics.reaped(&labels(&ended.connection));
    let due = match plane.receiver_of(&plane.live_owned(), &ended.connection) {
        // The backend may still work on the `$connect`. It must not get the `$disconnect` before it has answered.
        Receiver::Backend(way) if connecting => {
            way.stage.connect.as_ref().map_or(ended.since, |route| ended.since + route.integration.timeout)
        }
        Receiver::Backend(_) | Receiver::Nobody | Receiver::Unknown => Instant::now(),
    };
    report_at(plane, &ended.connection, due);
}
