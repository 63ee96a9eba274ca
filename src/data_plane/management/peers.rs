//! What is asked of other nodes about their own connections: each is asked once, all at the same time, and none asks
//! another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::push::PENDING_AFTER;
use super::reach::encode_for;
use crate::cluster::link::{PeerAnswer, PeerCallError, PeerRequest, PendingCall};
use crate::cluster::{OtherNodes, Owner};
use crate::data_plane::DataPlane;
use crate::groups::GroupRequest;
use crate::id::{ConnectionId, NodeId};
use crate::registry::MemberNodes;
use crate::stage_names::StageNames;
use crate::topic::TopicName;

/// How much longer than slow members are waited for a node may take to answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(3);

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = PENDING_AFTER.saturating_add(ANSWER_MARGIN);

/// A question that is on its way.
pub(super) type Asked = Result<PendingCall, PeerCallError>;

/// What came of a question.
pub(super) enum Reply {
    Said(Bytes),
    /// The node is gone for good, and its connections with it.
    Gone,
    /// It could not be asked, or did not answer: nothing is known.
    Nothing,
}

/// What all other nodes said.
#[derive(Debug, Default)]
pub(super) struct Replies {
    pub(super) said: Vec<Bytes>,
    /// Living nodes of which nothing is known.
    pub(super) unreachable: usize,
}

/// Waits for the answer to a question.
pub(super) async fn reply(asked: Asked) -> Reply {
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

/// Asks all other nodes that may have members of a group or of a user the same.
pub(super) async fn ask_all(plane: &DataPlane, api_id: &Arc<str>, name: &TopicName, ask: &GroupRequest) -> Replies {
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

/// Which of the other nodes may have members of these groups and users. `None` if all may.
pub(super) async fn holders(
    plane: &DataPlane,
    api_id: &Arc<str>,
    others: &OtherNodes,
    names: HashSet<&TopicName>,
) -> Option<MemberNodes> {
    let group_index = plane.group_index.as_ref().filter(|_| !others.is_empty() && !names.is_empty())?;
    group_index.find(api_id, names).await
}

/// Asks one node about connections that `ask` names; with `stages` those of others are gone.
pub(super) async fn ask_named(owner: Owner, ask: GroupRequest, stages: Option<&StageNames<Bytes>>) -> Reply {
    match owner {
        Owner::Linked(link) => {
            let head = encode_for(&link, ask, stages);
            reply(link.start(PeerRequest::Ask { head, data: Bytes::new() })).await
        }
        Owner::Gone => Reply::Gone,
        Owner::Unreachable => Reply::Nothing,
    }
}

/// Connections by the node that holds them: this node's own, and those of others with the way to each. A node that has
/// no cluster holds all that there are.
pub(super) async fn by_owner(
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
