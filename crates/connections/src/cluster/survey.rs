//! The commands that one heartbeat sends to Redis in one round trip, and the reading of the answers.

use std::collections::HashMap;
use std::time::Duration;

use thiserror::Error;
use tracing::debug;

use super::ClusterMember;
use super::node_index::NodeIndexEntry;
use super::observe::Look;
use super::scripts::{self, NodeLook};
use crate::redis_client::{
    BUCKETS, Keys, NodeAnswer, RedisCommand, RedisConnection, RedisError, Value, read, server_info,
};
use tidegate_core::id::NodeId;

/// The results of one survey.
#[derive(Debug)]
pub(super) struct Survey {
    /// Run id of the Redis server; empty if the Redis user may not run `INFO`.
    pub(super) run_id: String,
    /// The answer of the script that renews the lease.
    pub(super) renewal: NodeAnswer,
    /// The nodes that the index names, this one among them.
    pub(super) index: HashMap<NodeId, ClusterMember>,
    /// Entries of the index that cannot be read, and why.
    pub(super) unreadable: Vec<(String, String)>,
    /// Number of records in each bucket of this node.
    pub(super) counts: Vec<usize>,
    pub(super) looks: HashMap<NodeId, Look>,
}

#[derive(Debug, Error)]
pub(super) enum SurveyError {
    #[error("the Redis command failed")]
    Redis(#[source] RedisError),
}

/// Renews the `lease` of `node`, and reads the index, the sizes of the node's buckets and the keys of `others`, in one
/// round trip.
pub(super) async fn survey(
    connection: &RedisConnection,
    keys: &Keys,
    node: NodeId,
    epoch: u64,
    lease: Duration,
    others: &[NodeId],
) -> Result<Survey, SurveyError> {
    let mut calls = vec![
        server_info::ask(connection, keys, node, "server"),
        scripts::renew(keys, node, epoch, lease),
        RedisCommand::new("HGETALL", keys.index()),
    ];
    calls.extend((0..BUCKETS).map(|bucket| RedisCommand::new("HLEN", keys.bucket(node, bucket))));
    calls.extend(others.iter().map(|other| scripts::look(keys, *other)));
    let answers = connection.run(&calls).await.map_err(SurveyError::Redis)?;
    read_survey(answers, others).map_err(SurveyError::Redis)
}

/// Looks at `nodes`.
pub(super) async fn look_at(
    connection: &RedisConnection,
    keys: &Keys,
    nodes: &[NodeId],
) -> Result<HashMap<NodeId, Look>, SurveyError> {
    let calls: Vec<RedisCommand> = nodes.iter().map(|node| scripts::look(keys, *node)).collect();
    let answers = connection.run(&calls).await.map_err(SurveyError::Redis)?;
    read_looks(nodes, answers).map_err(SurveyError::Redis)
}

fn read_survey(answers: Vec<Value>, others: &[NodeId]) -> Result<Survey, RedisError> {
    let mut answers = answers.into_iter();
    let mut next = || answers.next().ok_or(RedisError::Unexpected);
    let info: String = read(next()?)?;
    let run_id = server_info::run_id_of(&info);
    let renewal = NodeAnswer::read(next()?)?;
    let (index, unreadable) = read_index(next()?)?;
    let counts = (0..BUCKETS).map(|_| read(next()?));
    let counts = counts.collect::<Result<_, RedisError>>()?;
    let looks = read_looks(others, answers.collect())?;
    Ok(Survey { run_id, renewal, index, unreadable, counts, looks })
}

type Index = (HashMap<NodeId, ClusterMember>, Vec<(String, String)>);

/// Reads the index. An entry that cannot be read does not hide the others.
pub(super) fn read_index(answer: Value) -> Result<Index, RedisError> {
    let entries: Vec<(Vec<u8>, Vec<u8>)> = read(answer)?;
    let (mut index, mut unreadable) = (HashMap::new(), Vec::new());
    for (node, entry) in entries {
        let [node, entry] = [node, entry].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match (NodeId::parse(&node), NodeIndexEntry::decode(&entry)) {
            (Ok(node), Ok(entry)) => {
                index.insert(node, entry.into_member(node));
            }
            (Err(error), _) => unreadable.push((node, error.to_string())),
            (_, Err(error)) => unreadable.push((node, error.to_string())),
        }
    }
    Ok((index, unreadable))
}

/// Reads the looks at other nodes. A node whose key is damaged is left out: its state is unknown, and it must not hold
/// up the others.
fn read_looks(nodes: &[NodeId], answers: Vec<Value>) -> Result<HashMap<NodeId, Look>, RedisError> {
    let mut looks = HashMap::with_capacity(nodes.len());
    for (node, answer) in nodes.iter().zip(answers) {
        let NodeLook { key, lease_alive, time_millis } = NodeLook::read(answer)?;
        match key {
            Some(key) => _ = looks.insert(*node, Look { key, lease_alive, time_millis }),
            None => debug!(%node, "the key of a node in Redis is damaged; ignoring the node"),
        }
    }
    Ok(looks)
}
