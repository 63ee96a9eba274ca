use std::collections::HashSet;
use std::sync::Arc;

use crate::id::ConnectionId;
use crate::topic::TopicName;

/// Whom a message is for, among the connections of one API. Who is named twice gets it once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Everybody who is connected to this stage.
    pub stage: Option<Arc<str>>,
    pub topics: Vec<TopicName>,
    pub connections: Vec<ConnectionId>,
    pub except: Except,
}

/// Who does not get a message, whoever it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Except(pub HashSet<ConnectionId>);

impl Audience {
    /// The members of one group, or the connections of one user.
    pub fn topic(name: TopicName) -> Self {
        Audience { topics: vec![name], ..Audience::default() }
    }

    /// Whether it takes more than ids to say who they are: then every node has to be asked.
    pub fn is_open(&self) -> bool {
        self.stage.is_some() || !self.topics.is_empty()
    }

    /// Whether somebody may be found in it twice.
    pub fn may_repeat(&self) -> bool {
        usize::from(self.stage.is_some()) + self.topics.len() + self.connections.len() > 1
    }
}

impl Except {
    /// Whether this connection gets nothing.
    pub fn has(&self, id: &ConnectionId) -> bool {
        !self.0.is_empty() && self.0.contains(id)
    }
}
