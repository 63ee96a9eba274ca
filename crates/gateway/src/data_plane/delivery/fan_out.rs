//! Messages to many connections. A message is queued on this node and on every other node that may have members, and
//! counted when all results are known.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use tokio::time::Instant;

use super::ask::{PendingRequest, Reply, by_owner, holders, wait_for};
use super::find::find_here;
use super::reach::{Reach, encode_for};
use crate::data_plane::{DataPlane, Live};
use tidegate_connections::cluster::link::{GroupRequest, Link, PeerRequest, PushResult};
use tidegate_connections::cluster::{OtherNodes, Owner};
use tidegate_connections::group_index::MemberNodes;
use tidegate_connections::groups::{Audience, FanOut, GroupMember, PushCounts};
use tidegate_connections::session::{DataFrame, Outbox};
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::stage_names::StageNames;
use tidegate_core::topic::Topic;
use tidegate_telemetry::{Span, SpanKind, StageLabels};

/// Longest time to wait for a slow member. After it the member is counted as pending. It still gets the message if its
/// socket accepts data again.
pub(in crate::data_plane) const PENDING_AFTER: Duration = Duration::from_secs(2);

/// The result of a message on all nodes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::data_plane) struct Outcome {
    pub(in crate::data_plane) counts: PushCounts,
    /// Number of nodes that may have members and did not answer.
    pub(in crate::data_plane) unreachable_nodes: usize,
    /// Named connections that are gone.
    pub(in crate::data_plane) gone: Vec<ConnectionId>,
}

/// A message that is queued on this node and was sent to all other nodes that may have members.
pub(in crate::data_plane) struct Pushing {
    here: Here,
    elsewhere: Vec<Elsewhere>,
    /// Named connections whose node is gone.
    gone: Vec<ConnectionId>,
    unreachable: usize,
}

/// The part of a message that was sent to another node.
struct Elsewhere {
    request: PendingRequest,
    /// The named connections of that node.
    connections: Vec<ConnectionId>,
    /// The span of the request. It ends when the node answers.
    span: Span,
}

/// The part of a message that is queued on this node.
pub(in crate::data_plane) struct Here {
    fan_out: FanOut,
    bytes: usize,
    gone: Vec<ConnectionId>,
    deadline: Instant,
}

/// Queues `messages` for their audiences, in their order, on this node and on all others that may have members. Other
/// nodes continue the trace of `span`.
pub(in crate::data_plane) async fn begin(
    plane: &DataPlane,
    labels: &StageLabels,
    span: &Span,
    reach: Reach<'_>,
    messages: Vec<(Audience, DataFrame)>,
) -> Vec<Pushing> {
    // The nodes are found before anything is queued. From then on nothing waits, so the order of the messages is kept.
    let mut named: Vec<ConnectionId> = Vec::new();
    messages.iter().for_each(|(audience, _)| named.extend(&audience.connections));
    let ways = match &plane.cluster {
        Some(cluster) => {
            let (_, owners) = by_owner(plane, &named).await;
            let owners = owners.into_iter().filter_map(|(owner, ids)| Some((ids.first()?.node(), owner)));
            let names = messages.iter().flat_map(|(audience, _)| &audience.topics).collect();
            let others = cluster.others();
            let holders = holders(plane, &labels.api_id, &others, names).await;
            let owners: HashMap<NodeId, Owner> = owners.collect();
            let stages = if owners.is_empty() { None } else { reach.stages() };
            Ways { owners, others, holders, stages }
        }
        None => Ways::default(),
    };
    let queue = |(audience, frame)| queue(plane, labels, span, (&ways, reach), audience, &frame);
    messages.into_iter().map(queue).collect()
}

/// The ways to other nodes at the time when messages are queued.
#[derive(Default)]
struct Ways {
    /// The nodes of named connections.
    owners: HashMap<NodeId, Owner>,
    others: OtherNodes,
    /// The other nodes that may have members, or `None` if all may.
    holders: Option<MemberNodes>,
    /// The stages to which named connections must belong, or `None` for every stage.
    stages: Option<StageNames<Bytes>>,
}

impl Ways {
    /// Returns true if `node` may have members of the stage, groups or users of `audience`.
    fn may_lead_to(&self, audience: &Audience, node: &NodeId) -> bool {
        let holds = |holders: &MemberNodes| holders.may_have(node, &audience.topics);
        audience.stage.is_some() || self.holders.as_ref().is_none_or(holds)
    }
}

fn queue(
    plane: &DataPlane,
    labels: &StageLabels,
    span: &Span,
    (ways, reach): (&Ways, Reach<'_>),
    mut audience: Audience,
    frame: &DataFrame,
) -> Pushing {
    let mut by_link: HashMap<NodeId, (&Arc<Link>, Vec<ConnectionId>)> = HashMap::new();
    let (mut gone, mut unreachable) = (Vec::new(), HashSet::new());
    if audience.is_open() {
        let leads = |node: &NodeId| ways.may_lead_to(&audience, node);
        let linked = ways.others.linked.iter().filter(|link| leads(&link.peer.node));
        by_link.extend(linked.map(|link| (link.peer.node, (link, Vec::new()))));
        unreachable.extend(ways.others.unreachable.iter().filter(|node| leads(node)));
    }
    let except = &audience.except;
    audience.connections.retain(|id| {
        // Without a cluster, and for this node's own connections, `owners` has no entry.
        let Some(owner) = ways.owners.get(&id.node()) else { return true };
        match owner {
            _ if except.has(id) => {}
            Owner::Linked(link) => by_link.entry(id.node()).or_insert((link, Vec::new())).1.push(*id),
            Owner::Gone => gone.push(*id),
            Owner::Unreachable => _ = unreachable.insert(id.node()),
        }
        false
    });
    gone.sort_unstable();
    gone.dedup();
    let elsewhere = by_link.into_values().map(|(link, connections)| {
        let audience = Audience { connections: connections.clone(), ..audience.clone() };
        let (api_id, stage) = (Arc::clone(&labels.api_id), Arc::clone(&labels.stage));
        let mut span = span.child("forward", SpanKind::Client);
        span.set("tidegate.peer", link.peer.node);
        let request =
            GroupRequest::Push { api_id, stage, audience, data_type: frame.data_type(), trace: Some(span.context()) };
        let stages = ways.stages.as_ref().filter(|_| !connections.is_empty());
        let head = encode_for(link, request, stages);
        Elsewhere { request: link.start(PeerRequest::Ask { head, data: frame.bytes() }), connections, span }
    });
    let elsewhere = elsewhere.collect();
    let here = queue_here(plane, labels, &audience, frame, reach);
    Pushing { here, elsewhere, gone, unreachable: unreachable.len() }
}

/// Waits for the results of a message on all nodes. The wait is bounded by [`PENDING_AFTER`] for slow members, and by
/// the time that other nodes have to answer.
pub(in crate::data_plane) async fn finish(
    plane: &DataPlane,
    live: &Live,
    labels: &StageLabels,
    pushing: Pushing,
) -> Outcome {
    let Pushing { here, elsewhere, gone, unreachable } = pushing;
    let replies = elsewhere.into_iter().map(|Elsewhere { request, connections, mut span }| async move {
        let reply = wait_for(request).await;
        if !matches!(reply, Reply::Answer(_)) {
            span.fail("no answer");
        }
        (reply, connections)
    });
    let (here, elsewhere) = join(settle_here(plane, live, labels, here), join_all(replies)).await;
    let mut outcome = Outcome { counts: here.counts, unreachable_nodes: unreachable, gone: here.gone };
    outcome.counts.gone += gone.len();
    outcome.gone.extend(gone);
    for (reply, connections) in elsewhere {
        match reply {
            Reply::Answer(answer) => match PushResult::decode(&answer) {
                Ok(pushed) => {
                    outcome.counts.add(pushed.counts);
                    outcome.gone.extend(pushed.gone);
                }
                Err(_) => outcome.unreachable_nodes += 1,
            },
            Reply::NodeGone => {
                outcome.counts.gone += connections.len();
                outcome.gone.extend(connections);
            }
            Reply::NoAnswer => outcome.unreachable_nodes += 1,
        }
    }
    outcome
}

/// Queues a message for the members of its audience on this node. Named connections must be within `reach`.
pub(in crate::data_plane) fn queue_here(
    plane: &DataPlane,
    labels: &StageLabels,
    audience: &Audience,
    frame: &DataFrame,
    reach: Reach<'_>,
) -> Here {
    let api_id = &labels.api_id;
    let mut members = Vec::new();
    if let Some(stage) = &audience.stage {
        let member = |id, outbox: &Arc<Outbox>| GroupMember { id, outbox: Arc::clone(outbox) };
        members = plane.registry.open_in(api_id, stage, member);
    }
    for name in &audience.topics {
        let topic = Topic { api_id: Arc::clone(api_id), name: name.clone() };
        members.append(&mut plane.groups.members(&topic));
    }
    let mut gone = Vec::new();
    for id in audience.connections.iter().filter(|id| !audience.except.has(id)) {
        match find_here(plane, api_id, id, reach) {
            Some(open) => members.push(GroupMember { id: *id, outbox: open.outbox }),
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

/// Waits for the results of a message that was queued on this node, and counts them.
pub(in crate::data_plane) async fn settle_here(
    plane: &DataPlane,
    live: &Live,
    labels: &StageLabels,
    here: Here,
) -> PushResult {
    let Here { fan_out, bytes, gone, deadline } = here;
    let mut counts = fan_out.settled(deadline).await;
    counts.gone += gone.len();
    let deployment = live.deployments.api(&labels.api_id);
    if let Some(stage) = deployment.and_then(|deployment| deployment.stage(&labels.stage)) {
        let meters = stage.telemetry.default.meters(&plane.telemetry.metrics, labels);
        plane.telemetry.metrics.fanned_out(meters, [counts.delivered, counts.gone, counts.full, counts.pending], bytes);
    }
    PushResult { counts, gone }
}
