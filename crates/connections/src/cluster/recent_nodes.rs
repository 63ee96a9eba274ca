//! Nodes that are remembered for what was last noted of them, up to a limit.

use std::collections::HashMap;

use tokio::time::Instant;

use tidegate_core::id::NodeId;

/// Remembers `node` since `at`. If it is a new one and `max` nodes are remembered already, the oldest is forgotten.
pub(super) fn remember(nodes: &mut HashMap<NodeId, Instant>, max: usize, node: NodeId, at: Instant) {
    if nodes.len() >= max && !nodes.contains_key(&node) {
        let oldest = nodes.iter().min_by_key(|(_, since)| **since).map(|(node, _)| *node);
        oldest.and_then(|oldest| nodes.remove(&oldest));
    }
    nodes.insert(node, at);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn beyond_the_limit_the_oldest_node_is_forgotten() {
        let (begin, mut nodes) = (Instant::now(), HashMap::new());
        let all: Vec<NodeId> = (1..=4).map(NodeId::from_bits).collect();
        // The second is the oldest.
        for (node, second) in all.iter().zip([2, 1, 3, 4]) {
            remember(&mut nodes, 3, *node, begin + Duration::from_secs(second));
        }
        let left: Vec<bool> = all.iter().map(|node| nodes.contains_key(node)).collect();
        assert_eq!(left, [true, false, true, true]);
        // A node that is remembered already takes no other's place.
        remember(&mut nodes, 3, all[0], begin + Duration::from_secs(5));
        assert_eq!(nodes.len(), 3);
    }
}
