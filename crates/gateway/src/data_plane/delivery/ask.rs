//! Requests to other nodes about their own connections. Each node gets a request once, all at the same time, and none
//! forwards it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::fan_out::PENDING_AFTER;
use super::reach::encode_for;
use crate::data_plane::DataPlane;
use tidegate_connections::cluster::link::{
    GroupRequest, MemberPage, PeerAnswer, PeerCallError, PeerRequest, PendingCall,
};
use tidegate_connections::cluster::{OtherNodes, Owner};
use tidegate_connections::group_index::MemberNodes;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::stage_names::StageNames;
use tidegate_core::topic::TopicName;

/// Time beyond [`PENDING_AFTER`] in which a node must answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(3);

/// Longest time that a node may take to answer.
const ANSWER_TIMEOUT: Duration = PENDING_AFTER.saturating_add(ANSWER_MARGIN);

/// A request that was sent, or the reason why it was not.
pub(in crate::data_plane) type PendingRequest = Result<PendingCall, PeerCallError>;

/// The result of a request.
pub(in crate::data_plane) enum Reply {
    /// The node's answer.
    Answer(Bytes),
    /// The node is gone for good, and its connections with it.
    NodeGone,
    /// The request could not be sent, or was not answered.
    NoAnswer,
}

/// The answers of all other nodes.
#[derive(Debug, Default)]
struct Replies {
    answers: Vec<Bytes>,
    /// Number of living nodes that did not answer.
    unreachable: usize,
}

/// Waits for the answer to a request.
pub(in crate::data_plane) async fn wait_for(request: PendingRequest) -> Reply {
    let answer = match request {
        Ok(pending) => pending.within(ANSWER_TIMEOUT).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(PeerAnswer::Info(answer)) => Reply::Answer(answer),
        Err(PeerCallError::Gone) => Reply::NodeGone,
        Ok(PeerAnswer::Outcome(_)) | Err(PeerCallError::NotSent | PeerCallError::Unknown) => Reply::NoAnswer,
    }
}

/// Sends `request` to all other nodes that may have members of `name`.
async fn ask_all(plane: &DataPlane, api_id: &Arc<str>, name: &TopicName, request: &GroupRequest) -> Replies {
    let Some(cluster) = &plane.cluster else { return Replies::default() };
    let mut others = cluster.others();
    if let Some(holders) = holders(plane, api_id, &others, [name].into()).await {
        others.retain(|node| holders.may_have(node, std::slice::from_ref(name)));
    }
    let head = request.encode();
    let pending =
        others.linked.iter().map(|link| link.start(PeerRequest::Ask { head: head.clone(), data: Bytes::new() }));
    let pending: Vec<PendingRequest> = pending.collect();
    let mut replies = Replies { answers: Vec::new(), unreachable: others.unreachable.len() };
    for reply in join_all(pending.into_iter().map(wait_for)).await {
        match reply {
            Reply::Answer(answer) => replies.answers.push(answer),
            Reply::NodeGone => {}
            Reply::NoAnswer => replies.unreachable += 1,
        }
    }
    replies
}

/// Adds the members on all other nodes, which answer `request` with a page of them, to those of this node. Returns also
/// the number of nodes that did not answer.
pub(in crate::data_plane) async fn members_of_all(
    plane: &DataPlane,
    api_id: &Arc<str>,
    name: &TopicName,
    here: MemberPage,
    request: &GroupRequest,
) -> (MemberPage, usize) {
    let Replies { answers, mut unreachable } = ask_all(plane, api_id, name, request).await;
    let mut all = here;
    for answer in answers {
        match MemberPage::decode(&answer) {
            Ok(MemberPage { count, ids }) => {
                all.count += count;
                all.ids.extend(ids);
            }
            Err(_) => unreachable += 1,
        }
    }
    (all, unreachable)
}

/// Returns the nodes among `others` that may have members of the groups and users `names`, or `None` if all may.
pub(in crate::data_plane) async fn holders(
    plane: &DataPlane,
    api_id: &Arc<str>,
    others: &OtherNodes,
    names: HashSet<&TopicName>,
) -> Option<MemberNodes> {
    let group_index = plane.group_index.as_ref().filter(|_| !others.is_empty() && !names.is_empty())?;
    group_index.find(api_id, names).await
}

/// Sends one node `request`, which names connections. With `stages`, connections of other stages are gone.
pub(in crate::data_plane) async fn ask_named(
    owner: Owner,
    request: GroupRequest,
    stages: Option<&StageNames<Bytes>>,
) -> Reply {
    match owner {
        Owner::Linked(link) => {
            let head = encode_for(&link, request, stages);
            wait_for(link.start(PeerRequest::Ask { head, data: Bytes::new() })).await
        }
        Owner::Gone => Reply::NodeGone,
        Owner::Unreachable => Reply::NoAnswer,
    }
}

/// Returns `connections` by the node that holds them: this node's own, and those of each other node with the way to it.
/// Without a cluster this node holds all of them.
pub(in crate::data_plane) async fn by_owner(
    plane: &DataPlane,
    connections: &[ConnectionId],
) -> (Vec<ConnectionId>, Vec<(Owner, Vec<ConnectionId>)>) {
    let Some(cluster) = &plane.cluster else { return (connections.to_vec(), Vec::new()) };
    let mut by_node: HashMap<NodeId, Vec<ConnectionId>> = HashMap::new();
    for id in connections {
        by_node.entry(id.node()).or_default().push(*id);
    }
    let own = by_node.remove(&plane.registry.node()).unwrap_or_default();
    let nodes: Vec<NodeId> = by_node.keys().copied().collect();
    let owners = cluster.owners(&nodes).await;
    let elsewhere = nodes.iter().zip(owners).filter_map(|(node, owner)| Some((owner, by_node.remove(node)?)));
    let elsewhere = elsewhere.collect();
    (own, elsewhere)
}
