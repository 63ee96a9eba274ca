use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Registry;
use super::entry::Entry;
use super::record::{Record, RecordState};
use tidegate_core::id::{ConnectionId, NodeId};

/// The connections that an operator asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub api: Option<String>,
    pub stage: Option<String>,
    pub node: Option<NodeId>,
}

/// A connection, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionView {
    pub connection_id: String,
    /// Node that has its record.
    pub node: String,
    pub api_id: String,
    pub stage: String,
    /// State of the connection: `connecting`, `open` or `ended`. An ended one waits until its `$disconnect` is
    /// delivered.
    pub state: String,
    /// Time in ISO 8601.
    pub connected_at: String,
    pub source_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_status_code: Option<u16>,
    /// Number of the next attempt to deliver the `$disconnect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// A page of connections, and the place where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    pub connections: Vec<ConnectionView>,
    /// Cursor for the next page; `None` if this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Query {
    /// Returns true if `record` is one that the query asks for. Its node is not compared.
    pub fn matches(&self, record: &Record) -> bool {
        let connection = &record.connection;
        self.api.as_deref().is_none_or(|api| *connection.api_id == *api)
            && self.stage.as_deref().is_none_or(|stage| *connection.stage == *stage)
    }
}

impl ConnectionView {
    /// Returns the view of `record`, which belongs to `node`.
    pub fn new(node: NodeId, record: &Record) -> Self {
        let Record { connection, state } = record;
        let (name, code, attempt) = match state {
            RecordState::Connecting => ("connecting", None, None),
            RecordState::Open => ("open", None, None),
            RecordState::Ended { code, attempt, .. } => ("ended", Some(*code), Some(*attempt)),
        };
        ConnectionView {
            connection_id: connection.id.to_string(),
            node: node.to_string(),
            api_id: connection.api_id.to_string(),
            stage: connection.stage.to_string(),
            state: name.to_owned(),
            connected_at: connection.connected_at.iso_8601(),
            source_ip: connection.source_ip.to_string(),
            user_agent: connection.user_agent.as_deref().map(str::to_owned),
            disconnect_status_code: code,
            attempt,
        }
    }
}

impl Registry {
    /// Returns the first `limit` connections of this node that match `query`, in the order of their ids, behind
    /// `cursor`.
    pub fn page(&self, query: &Query, cursor: Option<&ConnectionId>, limit: usize) -> Page {
        let node = self.node();
        if query.node.is_some_and(|requested| requested != node) {
            return Page::default();
        }
        let mut found: BTreeMap<ConnectionId, Record> = BTreeMap::new();
        let mut is_more = false;
        for entry in &self.entries {
            let id = *entry.key();
            if cursor.is_some_and(|cursor| id <= *cursor) || found.len() >= limit && found.keys().last() < Some(&id) {
                is_more |= cursor.is_none_or(|cursor| id > *cursor);
                continue;
            }
            let record = entry.record();
            if query.matches(&record) {
                found.insert(id, record);
            }
            if found.len() > limit {
                found.pop_last();
                is_more = true;
            }
        }
        let cursor = found.keys().last().filter(|_| is_more).map(ToString::to_string);
        Page { connections: found.values().map(|record| ConnectionView::new(node, record)).collect(), cursor }
    }
}

impl Entry {
    fn record(&self) -> Record {
        Record { connection: self.connection.clone(), state: self.record_state() }
    }
}
