//! Requests to other nodes about their own connections. Each node gets a request once, all at the same time, and none
//! forwards it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::fan_out::PENDING_AFTER;
use super::reach::encode_for;
use crate::cluster::link::{PeerAnswer, PeerCallError, PeerRequest, PendingCall};
use crate::cluster::{OtherNodes, Owner};
use crate::data_plane::DataPlane;
use crate::groups::GroupRequest;
use crate::id::{ConnectionId, NodeId};
use crate::registry::MemberNodes;
use crate::stage_names::StageNames;
use crate::topic::TopicName;

/// Time beyond [`PENDING_AFTER`] in which a node must answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(3);

/// Longest time that a node may take to answer.
const ANSWER_TIMEOUT: Duration = PENDING_AFTER.saturating_add(ANSWER_MARGIN);

/// A request that was sent, or the reason why it was not.
pub(in crate::data_plane) type Asked = Result<PendingCall, PeerCallError>;

/// The result of a request.
pub(in crate::data_plane) enum Reply {
    /// The node's answer.
    Said(Bytes),
    /// The node is gone for good, and its connections with it.
    Gone,
    /// The request could not be sent, or was not answered.
    Nothing,
}

/// The answers of all other nodes.
#[derive(Debug, Default)]
pub(in crate::data_plane) struct Replies {
    pub(in crate::data_plane) said: Vec<Bytes>,
    /// Number of living nodes that did not answer.
    pub(in crate::data_plane) unreachable: usize,
}

/// Waits for the answer to a request.
pub(in crate::data_plane) async fn reply(asked: Asked) -> Reply {
    let answer = match asked {
        Ok(waiting) => waiting.within(ANSWER_TIMEOUT).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(PeerAnswer::Info(said)) => Reply::Said(said),
        Err(PeerCallError::Gone) => Reply::Gone,
        Ok(PeerAnswer::Outcome(_)) | Err(PeerCallError::NotSent | PeerCallError::Unknown) => Reply::Nothing,
    }
}

/// Sends the request `ask` to all other nodes that may have members of `name`.
pub(in crate::data_plane) async fn ask_all(
    plane: &DataPlane,
    api_id: &Arc<str>,
    name: &TopicName,
    ask: &GroupRequest,
) -> Replies {
    let Some(cluster) = &plane.cluster else { return Replies::default() };
    let mut others = cluster.others();
    if let Some(holders) = holders(plane, api_id, &others, [name].into()).await {
        others.retain(|node| holders.may_have(node, std::slice::from_ref(name)));
    }
    let head = ask.encode();
    let asked =
        others.linked.iter().map(|link| link.start(PeerRequest::Ask { head: head.clone(), data: Bytes::new() }));
    let asked: Vec<Asked> = asked.collect();
    let mut replies = Replies { said: Vec::new(), unreachable: others.unreachable.len() };
    for answer in join_all(asked.into_iter().map(reply)).await {
        match answer {
            Reply::Said(said) => replies.said.push(said),
            Reply::Gone => {}
            Reply::Nothing => replies.unreachable += 1,
        }
    }
    replies
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

/// Sends one node the request `ask`, which names connections. With `stages`, connections of other stages are gone.
pub(in crate::data_plane) async fn ask_named(
    owner: Owner,
    ask: GroupRequest,
    stages: Option<&StageNames<Bytes>>,
) -> Reply {
    match owner {
        Owner::Linked(link) => {
            let head = encode_for(&link, ask, stages);
            reply(link.start(PeerRequest::Ask { head, data: Bytes::new() })).await
        }
        Owner::Gone => Reply::Gone,
        Owner::Unreachable => Reply::Nothing,
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
