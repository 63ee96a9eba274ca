//! What one beat asks Redis, in one go, and how the answers are read.

use std::collections::HashMap;
use std::time::Duration;

use thiserror::Error;

use super::Member;
use super::decide::node_key;
use super::index::IndexEntry;
use super::observe::Look;
use crate::id::NodeId;
use crate::redis_client::{BUCKETS, Call, Keys, RedisConnection, RedisError, Value, read, scripts};

/// All that one beat learns.
#[derive(Debug)]
pub(super) struct Survey {
    /// One start of the Redis server; empty if this node may not ask.
    pub(super) run_id: String,
    /// The answer to the renewal.
    pub(super) renewal: String,
    /// The nodes that the index names, this one among them.
    pub(super) index: HashMap<NodeId, Member>,
    /// Entries of the index that cannot be used, and why.
    pub(super) unreadable: Vec<(String, String)>,
    /// Records in each bucket of this node.
    pub(super) counts: Vec<usize>,
    pub(super) looks: HashMap<NodeId, Look>,
}

#[derive(Debug, Error)]
pub(super) enum SurveyError {
    #[error("the Redis command failed")]
    Redis(#[source] RedisError),
}

/// Renews the lease of `node` and looks at everything, in one round trip.
pub(super) async fn survey(
    connection: &RedisConnection,
    keys: &Keys,
    node: NodeId,
    epoch: u64,
    lease: Duration,
    others: &[NodeId],
) -> Result<Survey, SurveyError> {
    let mut calls = vec![
        scripts::info(connection, keys, node, "server"),
        scripts::renew(keys, node, epoch, lease),
        Call::command("HGETALL", keys.index()),
    ];
    calls.extend((0..BUCKETS).map(|bucket| Call::command("HLEN", keys.bucket(node, bucket))));
    calls.extend(others.iter().map(|other| scripts::look(keys, *other)));
    let answers = connection.run(&calls).await.map_err(SurveyError::Redis)?;
    read_survey(answers, others).map_err(SurveyError::Redis)
}

/// Looks at some nodes.
pub(super) async fn look_at(
    connection: &RedisConnection,
    keys: &Keys,
    nodes: &[NodeId],
) -> Result<HashMap<NodeId, Look>, SurveyError> {
    let calls: Vec<Call> = nodes.iter().map(|node| scripts::look(keys, *node)).collect();
    let answers = connection.run(&calls).await.map_err(SurveyError::Redis)?;
    read_looks(nodes, answers).map_err(SurveyError::Redis)
}

fn read_survey(answers: Vec<Value>, others: &[NodeId]) -> Result<Survey, RedisError> {
    let mut answers = answers.into_iter();
    let mut next = || answers.next().ok_or(RedisError::Unexpected);
    let info: String = read(next()?)?;
    let run_id = run_id_of(&info);
    let renewal = read(next()?)?;
    let (index, unreadable) = read_index(next()?)?;
    let counts = (0..BUCKETS).map(|_| read(next()?));
    let counts = counts.collect::<Result<_, RedisError>>()?;
    let looks = read_looks(others, answers.collect())?;
    Ok(Survey { run_id, renewal, index, unreadable, counts, looks })
}

/// The start of the server that gave this section of `INFO`; empty if the section is.
pub(super) fn run_id_of(info: &str) -> String {
    info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim().to_owned()
}

type Index = (HashMap<NodeId, Member>, Vec<(String, String)>);

/// Reads the index. An entry that cannot be read takes no other with it.
pub(super) fn read_index(answer: Value) -> Result<Index, RedisError> {
    let entries: HashMap<String, String> = read(answer)?;
    let (mut index, mut unreadable) = (HashMap::new(), Vec::new());
    for (node, entry) in entries {
        match (NodeId::parse(&node), IndexEntry::decode(&entry)) {
            (Ok(node), Ok(entry)) => {
                index.insert(node, entry.into_member(node));
            }
            (Err(error), _) => unreadable.push((node, error.to_string())),
            (_, Err(error)) => unreadable.push((node, error.to_string())),
        }
    }
    Ok((index, unreadable))
}

fn read_looks(nodes: &[NodeId], answers: Vec<Value>) -> Result<HashMap<NodeId, Look>, RedisError> {
    let look = |answer: Value| -> Result<Look, RedisError> {
        let (key, lease, time_millis): (String, u8, u64) = read(answer)?;
        let key = node_key(&key).ok_or(RedisError::Unexpected)?;
        Ok(Look { key, lease_alive: lease > 0, time_millis })
    };
    nodes.iter().copied().zip(answers).map(|(node, answer)| Ok((node, look(answer)?))).collect()
}
