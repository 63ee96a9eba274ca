use serde::{Deserialize, Serialize};

use super::ClusterMember;
use super::link::PROTOCOL;
use crate::redis_client::NodeKey;
use crate::registry::record::RECORD_FORMAT;
use tidegate_core::id::NodeId;

/// Version of the entry's own format.
const ENTRY_VERSION: u32 = 1;

/// The entry of a node in the index. Fields that this version does not know are ignored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeIndexEntry {
    v: u32,
    protocol: (u16, u16),
    record: u16,
    advertise: String,
    version: String,
}

impl NodeIndexEntry {
    /// Returns the entry of this node, which its peers reach at `advertise`.
    pub(super) fn own(advertise: &str) -> Self {
        NodeIndexEntry {
            v: ENTRY_VERSION,
            protocol: PROTOCOL,
            record: RECORD_FORMAT.into(),
            advertise: advertise.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Returns the entry of another node, as it was read.
    pub(super) fn of(member: &ClusterMember) -> Self {
        let ClusterMember { advertise, version, protocol, record, .. } = member;
        let (protocol, record) = (*protocol, *record);
        NodeIndexEntry { v: ENTRY_VERSION, protocol, record, advertise: advertise.clone(), version: version.clone() }
    }

    /// Returns the text that stands in Redis.
    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }

    /// Reads the entry of another node.
    ///
    /// # Errors
    /// The text is not an entry, or a field is missing that this version needs.
    pub(super) fn decode(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Returns the member `node`, whose keys are not read yet.
    pub(super) fn into_member(self, node: NodeId) -> ClusterMember {
        ClusterMember {
            node,
            advertise: self.advertise,
            version: self.version,
            protocol: self.protocol,
            record: self.record,
            key: NodeKey::Missing,
            lease_alive: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_other_versions_are_read_as_far_as_they_are_known() {
        let later = r#"{"v":2,"protocol":[2,5],"record":3,"advertise":"a:1","version":"9","color":"red"}"#;
        let member = NodeIndexEntry::decode(later).unwrap().into_member(NodeId::random());
        assert_eq!((member.protocol, member.record, &*member.advertise), ((2, 5), 3, "a:1"));
        assert!(NodeIndexEntry::decode("{}").is_err());
        let own = NodeIndexEntry::own("a:1").encode();
        assert_eq!(
            own,
            format!(
                r#"{{"v":1,"protocol":[1,3],"record":2,"advertise":"a:1","version":"{}"}}"#,
                env!("CARGO_PKG_VERSION")
            )
        );
    }
}
