use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::find_here;
use crate::data_plane::DataPlane;
use crate::groups::{Audience, Counts, FanOut, Member, Pushed};
use crate::id::ConnectionId;
use crate::session::Frame;
use crate::telemetry::StageLabels;
use crate::topic::Topic;

/// How long a slow member is waited for; then it counts as pending, and gets the message all the same if it ever can.
pub(super) const PENDING_AFTER: Duration = Duration::from_secs(2);

/// What became of a message, on all nodes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::data_plane) struct Outcome {
    pub counts: Counts,
    /// Nodes that may have had somebody to send it to, and did not say what became of it.
    pub unreachable_nodes: usize,
    /// Of the connections that were named, those that are gone.
    pub gone: Vec<ConnectionId>,
}

/// A message that is queued wherever it goes.
pub(in crate::data_plane) struct Pushing {
    here: Here,
}

/// What is queued on this node.
pub(super) struct Here {
    fan_out: FanOut,
    bytes: usize,
    gone: Vec<ConnectionId>,
    deadline: Instant,
}

/// Queues messages for their audiences, in their order, on this node and on all others that may have somebody.
pub(in crate::data_plane) async fn begin(
    plane: &DataPlane,
    labels: &StageLabels,
    messages: impl IntoIterator<Item = (Audience, Frame)>,
) -> Vec<Pushing> {
    let queue = |(audience, frame): (Audience, Frame)| Pushing { here: queue_here(plane, labels, &audience, &frame) };
    messages.into_iter().map(queue).collect()
}

/// Waits until all is known of a message, for as long as slow members are waited for.
pub(in crate::data_plane) async fn finish(plane: &DataPlane, labels: &StageLabels, pushing: Pushing) -> Outcome {
    let Pushed { counts, gone } = settle_here(plane, labels, pushing.here).await;
    Outcome { counts, unreachable_nodes: 0, gone }
}

/// Queues a message for those of its audience who are on this node.
pub(super) fn queue_here(plane: &DataPlane, labels: &StageLabels, audience: &Audience, frame: &Frame) -> Here {
    let api_id = &labels.api_id;
    let mut members = Vec::new();
    if let Some(stage) = &audience.stage {
        members = plane.registry.open_in(api_id, stage);
    }
    for name in &audience.topics {
        let topic = Topic { api_id: Arc::clone(api_id), name: name.clone() };
        members.append(&mut plane.groups.members(&topic));
    }
    let mut gone = Vec::new();
    for id in audience.connections.iter().filter(|id| !audience.except.has(id)) {
        match find_here(plane, api_id, id) {
            Some(open) => members.push(Member { id: *id, outbox: open.outbox }),
            None => gone.push(*id),
        }
    }
    if audience.may_repeat() {
        let mut seen = HashSet::with_capacity(members.len());
        members.retain(|member| seen.insert(member.id));
        gone.sort_unstable();
        gone.dedup();
    }
    members.retain(|member| !audience.except.has(&member.id));
    let fan_out = FanOut::queue(members, frame, plane.clock.now());
    Here { fan_out, bytes: frame.len(), gone, deadline: Instant::now() + PENDING_AFTER }
}

/// Waits until all is known of what was queued on this node, and counts it.
pub(super) async fn settle_here(plane: &DataPlane, labels: &StageLabels, here: Here) -> Pushed {
    let Here { fan_out, bytes, gone, deadline } = here;
    let mut counts = fan_out.settled(deadline).await;
    counts.gone += gone.len();
    let live = plane.live();
    let deployment = live.deployments.api(&labels.api_id);
    if let Some(stage) = deployment.and_then(|deployment| deployment.stage(&labels.stage)) {
        let meters = stage.telemetry.default.meters(&plane.metrics, labels);
        plane.metrics.fanned_out(meters, [counts.delivered, counts.gone, counts.full, counts.pending], bytes);
    }
    Pushed { counts, gone }
}
