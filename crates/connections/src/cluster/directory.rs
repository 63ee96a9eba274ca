//! The view of all nodes and their connections that operators get, read from Redis a page at a time.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;

use super::ClusterMember;
use super::survey::{look_at, read_index};
use crate::redis_client::{BUCKETS, Keys, NodeKey, RedisCommand, RedisConnection, RedisError, read};
use crate::registry::record::{self, RecordTexts, texts_of};
use crate::registry::{ConnectionView, Page, Query};
use tidegate_core::error_chain::chain;
use tidegate_core::id::{ConnectionId, NodeId};

/// Most records that one page looks at, whether they are displayed or not.
const SCAN_MAX: usize = 10_000;

/// A reader of Redis for operators.
#[derive(Clone, Debug)]
pub struct Directory {
    connection: RedisConnection,
    keys: Keys,
}

/// The reason why nothing can be displayed.
#[derive(Debug, Error)]
pub enum DirectoryError {
    #[error("the Redis command failed")]
    Redis(#[source] RedisError),
    #[error("the cursor is not one that an earlier page returned")]
    Cursor,
}

/// A node, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    pub node: String,
    pub advertise: String,
    pub version: String,
    /// State of the node: `live`, `dead` (its connections wait for other nodes), or `missing` (Redis has only its entry
    /// in the index).
    pub state: String,
    /// True if its lease has not run out in Redis.
    pub lease_alive: bool,
    /// Number of its records: connections that connect, are open, or wait for their `$disconnect` to be delivered.
    pub connections: u64,
}

/// The end of a page: node, bucket, and Redis's own cursor in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    node: NodeId,
    bucket: usize,
    scan: u64,
}

impl Directory {
    /// Returns a reader of the nodes and connections below `keys`.
    pub fn new(connection: RedisConnection, keys: Keys) -> Self {
        Directory { connection, keys }
    }

    /// Returns all nodes, in the order of their ids.
    ///
    /// # Errors
    /// The Redis command failed.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, DirectoryError> {
        let mut members: Vec<ClusterMember> = self.index().await?.into_values().collect();
        members.sort_by_key(|member| member.node);
        let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        let looks = match look_at(&self.connection, &self.keys, &nodes).await {
            Ok(looks) => looks,
            Err(super::survey::SurveyError::Redis(error)) => return Err(DirectoryError::Redis(error)),
        };
        let buckets = nodes.iter().flat_map(|node| (0..BUCKETS).map(|bucket| self.keys.bucket(*node, bucket)));
        let calls: Vec<RedisCommand> = buckets.map(|key| RedisCommand::new("HLEN", key)).collect();
        let counts = self.connection.run(&calls).await.map_err(DirectoryError::Redis)?;
        let mut counts = counts.into_iter().map(|count| read::<u64>(count).unwrap_or_default());
        let view = |member: ClusterMember| {
            let look = looks.get(&member.node);
            NodeView {
                node: member.node.to_string(),
                advertise: member.advertise,
                version: member.version,
                state: match look.map_or(NodeKey::Missing, |look| look.key) {
                    NodeKey::Live { .. } => "live",
                    NodeKey::Dead { .. } => "dead",
                    NodeKey::Missing => "missing",
                }
                .to_owned(),
                lease_alive: look.is_some_and(|look| look.lease_alive),
                connections: counts.by_ref().take(BUCKETS).sum(),
            }
        };
        Ok(members.into_iter().map(view).collect())
    }

    /// Returns about `limit` connections that match `query`, behind `cursor`. A page may be empty and yet not the last.
    /// While connections come and go, a page may repeat one.
    ///
    /// # Errors
    /// The Redis command failed, or `cursor` is not one that an earlier page returned.
    pub async fn connections(&self, query: &Query, cursor: Option<&str>, limit: usize) -> Result<Page, DirectoryError> {
        let mut nodes: Vec<NodeId> = match query.node {
            Some(node) => vec![node],
            None => self.index().await?.into_keys().collect(),
        };
        nodes.sort();
        let start = cursor.map(|text| Cursor::parse(text).ok_or(DirectoryError::Cursor)).transpose()?;
        let first = nodes.first().map(|node| Cursor { node: *node, bucket: 0, scan: 0 });
        let mut next = match start {
            // The node may have gone since the page before: continue with the next one.
            Some(start) if !nodes.contains(&start.node) => after(&nodes, start.node),
            start => start.or(first),
        };
        let mut page = Page::default();
        let mut looked = 0;
        let mut texts: Option<(NodeId, RecordTexts)> = None;
        while let Some(at) = next {
            if page.connections.len() >= limit || looked >= SCAN_MAX {
                page.cursor = Some(at.to_text());
                break;
            }
            let count = limit.clamp(10, 1000);
            let (scan, records) = self.scan(at, count).await?;
            looked += records.len().max(1);
            if !records.is_empty() && texts.as_ref().is_none_or(|(node, _)| *node != at.node) {
                texts = Some((at.node, self.texts(at.node).await?));
            }
            if let Some((_, texts)) = &texts {
                show(query, at.node, records, texts, &mut page);
            }
            next = match scan {
                0 if at.bucket + 1 < BUCKETS => Some(Cursor { bucket: at.bucket + 1, scan: 0, ..at }),
                0 => after(&nodes, at.node),
                scan => Some(Cursor { scan, ..at }),
            };
        }
        Ok(page)
    }

    /// Counts the records of `node`, or of all nodes, without reading them.
    ///
    /// # Errors
    /// The Redis command failed.
    pub async fn count(&self, node: Option<NodeId>) -> Result<u64, DirectoryError> {
        let nodes = match node {
            Some(node) => vec![node],
            None => self.index().await?.into_keys().collect(),
        };
        let buckets = nodes.iter().flat_map(|node| (0..BUCKETS).map(|bucket| self.keys.bucket(*node, bucket)));
        let calls: Vec<RedisCommand> = buckets.map(|key| RedisCommand::new("HLEN", key)).collect();
        let counts = self.connection.run(&calls).await.map_err(DirectoryError::Redis)?;
        Ok(counts.into_iter().map(|count| read::<u64>(count).unwrap_or_default()).sum())
    }

    async fn index(&self) -> Result<HashMap<NodeId, ClusterMember>, DirectoryError> {
        let answer = self.connection.run_one(RedisCommand::new("HGETALL", self.keys.index())).await;
        let (index, unreadable) = answer.and_then(read_index).map_err(DirectoryError::Redis)?;
        for (node, why) in unreadable {
            warn!(node, error = why, "could not read the entry of a node in the index; leaving the node out");
        }
        Ok(index)
    }

    async fn scan(&self, at: Cursor, count: usize) -> Result<(u64, Vec<(Vec<u8>, Vec<u8>)>), DirectoryError> {
        let call = RedisCommand::new("HSCAN", self.keys.bucket(at.node, at.bucket))
            .arg(at.scan.to_string())
            .arg("COUNT")
            .arg(count.to_string());
        self.connection.run_one(call).await.and_then(read).map_err(DirectoryError::Redis)
    }

    /// Reads the texts that the records of `node` share.
    async fn texts(&self, node: NodeId) -> Result<RecordTexts, DirectoryError> {
        let texts = RedisCommand::new("HGETALL", self.keys.strings(node));
        let fields = self.connection.run_one(texts).await.and_then(read).map_err(DirectoryError::Redis)?;
        Ok(texts_of(fields))
    }
}

/// Adds the records that match `query` to `page`. A record that cannot be read does not hide the others.
fn show(query: &Query, node: NodeId, records: Vec<(Vec<u8>, Vec<u8>)>, texts: &RecordTexts, page: &mut Page) {
    let text = |number: u32| texts.get(&number).cloned();
    for (id, record) in records {
        let Ok(id) = ConnectionId::parse(&String::from_utf8_lossy(&id)) else {
            warn!(%node, "the key of a record is not a connection id; leaving the record out");
            continue;
        };
        match record::decode(id, &record, usize::MAX, text) {
            Ok(record) if query.matches(&record) => page.connections.push(ConnectionView::new(node, &record)),
            Ok(_) => {}
            Err(error) => {
                warn!(connection_id = %id, %node, error = %chain(&error), "could not read a record; leaving it out");
            }
        }
    }
}

/// Returns the beginning of the node that follows `node`.
fn after(nodes: &[NodeId], node: NodeId) -> Option<Cursor> {
    nodes.iter().find(|other| **other > node).map(|node| Cursor { node: *node, bucket: 0, scan: 0 })
}

impl Cursor {
    fn to_text(self) -> String {
        format!("{}.{:x}.{}", self.node, self.bucket, self.scan)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (node, bucket, scan) = (parts.next()?, parts.next()?, parts.next()?);
        let node = NodeId::parse(node).ok()?;
        let bucket = usize::from_str_radix(bucket, 16).ok().filter(|bucket| *bucket < BUCKETS)?;
        parts.next().is_none().then_some(Cursor { node, bucket, scan: scan.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_given_out() {
        let cursor = Cursor { node: NodeId::random(), bucket: 15, scan: u64::MAX };
        assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
        for text in ["", "a", "AAAAAAAA.1", "AAAAAAAA.10.0", "AAAAAAAA.0.x", "AAAAAAAA.0.0.0", "AAAA.0.0"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
