use std::collections::HashSet;
use std::sync::Arc;

use tidegate_core::id::ConnectionId;
use tidegate_core::topic::TopicName;

/// The receivers of a message, among the connections of one API. A connection that is named twice gets the message
/// once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// The stage all of whose connections get the message.
    pub stage: Option<Arc<str>>,
    pub topics: Vec<TopicName>,
    pub connections: Vec<ConnectionId>,
    pub except: Except,
}

/// The connections that do not get a message, even if the audience names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Except(pub HashSet<ConnectionId>);

impl Audience {
    /// Returns the audience of one group or one user.
    pub fn topic(name: TopicName) -> Self {
        Audience { topics: vec![name], ..Audience::default() }
    }

    /// Returns true if it names groups, users or a stage, whose members may be on any node.
    pub fn is_open(&self) -> bool {
        self.stage.is_some() || !self.topics.is_empty()
    }

    /// Returns true if a connection may be in it twice.
    pub fn may_repeat(&self) -> bool {
        usize::from(self.stage.is_some()) + self.topics.len() + self.connections.len() > 1
    }
}

impl Except {
    /// Returns true if the connection `id` gets nothing.
    pub fn has(&self, id: &ConnectionId) -> bool {
        !self.0.is_empty() && self.0.contains(id)
    }
}
