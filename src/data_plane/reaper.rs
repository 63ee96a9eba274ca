//! Sends the `$disconnect` events of connections whose node is dead. Which these are is decided elsewhere
//! ([`crate::cluster::Reaper`]): here each goes into the queue of its integration, among this node's own.

use std::sync::Arc;

use tokio::time::Instant;

use super::DataPlane;
use super::context::labels;
use super::websocket::disconnect;
use crate::registry::claims::{Arrival, Arrivals};

/// Takes over connections of dead nodes until the process aborts.
pub async fn take_over(plane: Arc<DataPlane>, mut arrivals: Arrivals) {
    let aborting = plane.lifecycle.aborting().clone();
    while let Some(Some(arrival)) = aborting.run_until_cancelled(arrivals.recv()).await {
        queue(&plane, arrival);
    }
}

fn queue(plane: &Arc<DataPlane>, Arrival { id, connecting }: Arrival) {
    let Some(ended) = plane.registry.get_ended(&id) else { return };
    plane.metrics.reaped(&labels(&ended.connection));
    let live = plane.live();
    let stage = live.deployments.api(&ended.connection.api_id);
    let stage = stage.and_then(|deployment| deployment.stage(&ended.connection.stage));
    // The backend may still be at the `$connect`, and must not hear of the end before it has answered.
    let connect = stage.and_then(|stage| stage.connect.as_deref()).filter(|_| connecting);
    let due = connect.map_or_else(Instant::now, |route| ended.since + route.integration.timeout);
    disconnect::report_at(plane, &ended.connection, due);
}
