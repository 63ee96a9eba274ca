use std::collections::{HashMap, HashSet};

use super::scripts::IndexLookup;
use tidegate_core::id::NodeId;
use tidegate_core::topic::TopicName;

/// The nodes that may have members of some groups and users.
#[derive(Clone, Debug, Default)]
pub struct MemberNodes {
    complete: HashSet<NodeId>,
    by_name: HashMap<TopicName, Vec<NodeId>>,
}

impl MemberNodes {
    pub(super) fn new(names: Vec<TopicName>, found: &IndexLookup) -> Self {
        let nodes = |texts: &[String]| texts.iter().filter_map(|text| NodeId::parse(text).ok()).collect::<Vec<_>>();
        let by_name = names.into_iter().zip(found.holders.iter().map(|texts| nodes(texts))).collect();
        MemberNodes { complete: nodes(&found.complete).into_iter().collect(), by_name }
    }

    /// Returns true if `node` may have members of one of `names`.
    pub fn may_have(&self, node: &NodeId, names: &[TopicName]) -> bool {
        let has = |name: &TopicName| self.by_name.get(name).is_none_or(|nodes| nodes.contains(node));
        !self.complete.contains(node) || names.iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_sure_is_asked() {
        let [a, b, c] = [(); 3].map(|()| NodeId::random());
        let [room, other] = ["room", "other"].map(|name| TopicName::group(name).unwrap());
        let texts = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect();
        let found = IndexLookup { complete: texts(&[a, b]), holders: vec![texts(&[b]), texts(&[a])] };
        let holders = MemberNodes::new(vec![room.clone(), other.clone()], &found);
        let check = |names: &[TopicName], expected: [bool; 3]| {
            assert_eq!([a, b, c].map(|node| holders.may_have(&node, names)), expected);
        };
        check(std::slice::from_ref(&room), [false, true, true]);
        check(std::slice::from_ref(&other), [true, false, true]);
        check(&[room, other], [true, true, true]);
        check(&[TopicName::user("room").unwrap()], [true, true, true]);
    }
}
