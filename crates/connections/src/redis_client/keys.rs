use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::topic::{Topic, TopicKind};

/// Characters that are escaped in a name from the configuration, so that the name neither ends a hash tag nor runs into
/// the next name.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Number of hashes over which the records of one node are spread, so that none is too large to be looked at in one
/// step.
pub const BUCKETS: usize = 16;

/// The names of all keys. The braces are the hash tag of Redis Cluster: all keys of a node are in one slot.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Returns the keys below `prefix`, which contains no braces.
    pub fn new(prefix: &str) -> Self {
        Keys { prefix: prefix.to_owned() }
    }

    /// Returns the hash: node id → entry of the node in the index.
    pub fn index(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// Returns the string: `live <epoch>` or `dead <epoch>`.
    pub fn node(&self, node: NodeId) -> String {
        self.of(node, "node")
    }

    /// Returns the string that exists while the node renews its lease.
    pub fn lease(&self, node: NodeId) -> String {
        self.of(node, "lease")
    }

    /// Returns the hash: connection id → record.
    pub fn bucket(&self, node: NodeId, bucket: usize) -> String {
        format!("{}:{{{node}}}:c:{bucket:x}", self.prefix)
    }

    /// Returns the hash: number → text that many records share.
    pub fn strings(&self, node: NodeId) -> String {
        self.of(node, "s")
    }

    /// Returns the hash: connection id → an unreadable record of this dead node. The field with the empty name holds
    /// the time at which the last record was added, in ms by Redis's clock.
    pub fn unreadable(&self, node: NodeId) -> String {
        self.of(node, "x")
    }

    /// Returns the hash: node id → entry in the index, of dead nodes that have unreadable records.
    pub fn unreadable_index(&self) -> String {
        format!("{}:unreadable", self.prefix)
    }

    /// Returns the string: the node that has claimed this bucket of a dead node.
    pub fn claim(&self, node: NodeId, bucket: usize) -> String {
        format!("{}:{{{node}}}:r:{bucket:x}", self.prefix)
    }

    /// Returns the hash: node id → end of the node's freshness lease.
    pub fn freshness_leases(&self) -> String {
        format!("{}:roster", self.prefix)
    }

    /// Returns the hash: node id → number of members of this group or user on the node.
    pub fn topic(&self, topic: &Topic) -> String {
        let kind = match topic.name.kind() {
            TopicKind::Group => "g",
            TopicKind::User => "u",
        };
        let [api_id, name] = [&*topic.api_id, topic.name.as_str()].map(|name| utf8_percent_encode(name, ESCAPED));
        format!("{}:{kind}:{{{api_id}/{name}}}", self.prefix)
    }

    /// Returns the set: keys of all groups and users of which the node has members.
    pub fn topics(&self, node: NodeId) -> String {
        self.of(node, "t")
    }

    /// Returns the string: used part of a quota. Each is in a slot of its own.
    pub fn quota(&self, plan: &str, api_key: &str, period: &str) -> String {
        let [plan, api_key] = [plan, api_key].map(|name| utf8_percent_encode(name, ESCAPED));
        format!("{}:quota:{{{plan}/{api_key}}}:{period}", self.prefix)
    }

    /// Returns the keys of all records of a node: its buckets, then its strings.
    pub fn records(&self, node: NodeId) -> impl Iterator<Item = String> + '_ {
        (0..BUCKETS).map(move |bucket| self.bucket(node, bucket)).chain([self.strings(node)])
    }

    /// Returns the bucket of a connection.
    pub fn bucket_of(id: &ConnectionId) -> usize {
        usize::from(id.bucket())
    }

    fn of(&self, node: NodeId, what: &str) -> String {
        format!("{}:{{{node}}}:{what}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::topic::TopicName;

    #[test]
    fn all_keys_of_a_node_have_its_hash_tag() {
        let node = NodeId::parse("AAAAAAAB").unwrap();
        let keys = Keys::new("tidegate");
        assert_eq!(keys.index(), "tidegate:nodes");
        assert_eq!(keys.node(node), "tidegate:{AAAAAAAB}:node");
        assert_eq!(keys.lease(node), "tidegate:{AAAAAAAB}:lease");
        assert_eq!(keys.bucket(node, 15), "tidegate:{AAAAAAAB}:c:f");
        assert_eq!(keys.claim(node, 10), "tidegate:{AAAAAAAB}:r:a");
        assert_eq!(keys.records(node).last().as_deref(), Some("tidegate:{AAAAAAAB}:s"));
        assert_eq!(keys.records(node).count(), BUCKETS + 1);
        assert_eq!(keys.topics(node), "tidegate:{AAAAAAAB}:t");
        assert_eq!(keys.unreadable(node), "tidegate:{AAAAAAAB}:x");
        assert_eq!(keys.unreadable_index(), "tidegate:unreadable");
        let topic = |name| Topic { api_id: "chat".into(), name };
        assert_eq!(keys.topic(&topic(TopicName::group("room-1").unwrap())), "tidegate:g:{chat/room-1}");
        assert_eq!(keys.topic(&topic(TopicName::user("a}/Ä").unwrap())), "tidegate:u:{chat/a%7D%2F%C3%84}");
        assert_eq!(keys.quota("basic", "mobile", "2026-11"), "tidegate:quota:{basic/mobile}:2026-11");
        assert_eq!(keys.quota("a}/b", "c", "2026-11"), "tidegate:quota:{a%7D%2Fb/c}:2026-11");
    }
}
