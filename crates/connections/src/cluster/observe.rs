//! The observations of this node on the others, and since when they hold without a break. Pure: time comes in.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::ClusterMember;
use super::recent_nodes::remember;
use crate::redis_client::NodeKey;
use tidegate_core::id::NodeId;

/// Most nodes whose departure is remembered. Beyond it the oldest is forgotten; a push to it is 410 as well, once this
/// node has been attached for a while.
const DEPARTED_MAX: usize = 4096;

/// A look at another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) key: NodeKey,
    pub(super) lease_alive: bool,
    /// Time on Redis's own clock, in ms.
    pub(super) time_millis: u64,
}

/// Everything that is known of the other nodes from all looks so far.
#[derive(Debug, Default)]
pub(super) struct Observations {
    nodes: BTreeMap<NodeId, WatchedNode>,
    departed: HashMap<NodeId, Instant>,
}

/// The times when a look was sent and when its answer was there. The look happened in between.
#[derive(Clone, Copy, Debug)]
pub(super) struct LookTimes {
    pub(super) sent: Instant,
    pub(super) answered: Instant,
}

/// A node that may be condemned, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CondemnCandidate {
    pub(super) node: NodeId,
    pub(super) key: NodeKey,
    /// Time on Redis's own clock, in ms.
    pub(super) time_millis: u64,
}

#[derive(Debug)]
struct WatchedNode {
    member: ClusterMember,
    in_index: bool,
    /// Beginning of the watch: since then nothing has happened that makes it begin anew. `None` until the next look.
    since: Option<Instant>,
    looked: Instant,
    time_millis: u64,
}

impl Observations {
    /// Returns the nodes to look at, whether the index names them or not.
    pub(super) fn known(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Lets every watch begin anew: this node could not see, or what it saw may have been lost.
    pub(super) fn interrupt(&mut self) {
        self.nodes.values_mut().for_each(|watched| watched.since = None);
    }

    /// Notes a look at all nodes: those that `index` names, and those that were known before.
    ///
    /// A node that has been neither in the index nor had a key for `watch` is gone for good. If Redis's clock jumps by
    /// more than `slack` between two looks, the watch begins anew, because the jump may have let leases lapse early.
    pub(super) fn note(
        &mut self,
        looked: LookTimes,
        index: &HashMap<NodeId, ClusterMember>,
        // A watch begins when the answer of its first look is there and ends when its last look is sent, so it is never
        // taken to be longer than it was.
        looks: &HashMap<NodeId, Look>,
        watch: Duration,
        slack: Duration,
    ) {
        let now = looked.sent;
        for (node, look) in looks {
            let in_index = index.get(node);
            let Some(watched) = self.nodes.get_mut(node) else {
                if let Some(member) = in_index {
                    let member = ClusterMember { key: look.key, lease_alive: look.lease_alive, ..member.clone() };
                    let (since, time_millis) = (Some(looked.answered), look.time_millis);
                    let watched = WatchedNode { member, in_index: true, since, looked: now, time_millis };
                    self.departed.remove(node);
                    self.nodes.insert(*node, watched);
                }
                continue;
            };
            let passed = now.saturating_duration_since(watched.looked);
            let passed_there = Duration::from_millis(look.time_millis.saturating_sub(watched.time_millis));
            let has_jumped = look.time_millis < watched.time_millis || passed.abs_diff(passed_there) > slack;
            if watched.member.key != look.key || has_jumped || watched.since.is_none() {
                watched.since = Some(looked.answered);
            }
            watched.in_index = in_index.is_some();
            let latest = in_index.unwrap_or(&watched.member).clone();
            watched.member = ClusterMember { key: look.key, lease_alive: look.lease_alive, ..latest };
            (watched.looked, watched.time_millis) = (now, look.time_millis);
        }
        let departed = &mut self.departed;
        self.nodes.retain(|node, watched| {
            let is_gone = watched.member.key == NodeKey::Missing
                && !index.contains_key(node)
                && watched.since.is_some_and(|since| now.saturating_duration_since(since) >= watch);
            if is_gone {
                remember(departed, DEPARTED_MAX, *node, now);
            }
            !is_gone
        });
    }

    /// Returns the nodes that may be condemned on a look that was sent at `sent`: they are in the index, are not dead,
    /// have no lease, and were watched for `watch` without a break.
    pub(super) fn condemnable(&self, sent: Instant, watch: Duration) -> Vec<CondemnCandidate> {
        let is_condemnable = |watched: &WatchedNode| {
            let member = &watched.member;
            let is_watched = watched.since.is_some_and(|since| sent.saturating_duration_since(since) >= watch);
            watched.in_index && !member.lease_alive && !matches!(member.key, NodeKey::Dead { .. }) && is_watched
        };
        let candidates = self.nodes.values().filter(|watched| is_condemnable(watched));
        candidates
            .map(|WatchedNode { member, time_millis, .. }| CondemnCandidate {
                node: member.node,
                key: member.key,
                time_millis: *time_millis,
            })
            .collect()
    }

    /// Notes that this node has condemned `node`.
    pub(super) fn condemned(&mut self, node: &NodeId) {
        if let Some(watched) = self.nodes.get_mut(node) {
            let epoch = if let NodeKey::Live { epoch } = watched.member.key { epoch } else { 0 };
            watched.member.key = NodeKey::Dead { epoch };
            watched.since = None;
        }
    }

    /// Returns the dead nodes that the index names.
    pub(super) fn dead(&self) -> Vec<ClusterMember> {
        let is_dead = |watched: &&WatchedNode| watched.in_index && matches!(watched.member.key, NodeKey::Dead { .. });
        self.nodes.values().filter(is_dead).map(|watched| watched.member.clone()).collect()
    }

    /// Returns all nodes that are not gone for good.
    pub(super) fn members(&self) -> HashMap<NodeId, ClusterMember> {
        self.nodes.iter().map(|(node, watched)| (*node, watched.member.clone())).collect()
    }

    /// Returns the nodes that are gone for good, and when this was noticed.
    pub(super) fn departed(&self) -> HashMap<NodeId, Instant> {
        self.departed.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCH: Duration = Duration::from_secs(5);
    const SLACK: Duration = Duration::from_millis(800);

    struct Test {
        observations: Observations,
        begin: Instant,
        node: NodeId,
    }

    impl Test {
        fn new() -> Self {
            Test { observations: Observations::default(), begin: Instant::now(), node: NodeId::random() }
        }

        /// Looks at the node at `second` on this node's clock, which is `redis_second` on that of Redis.
        fn look(&mut self, second: u64, redis_second: u64, key: NodeKey, in_index: bool) {
            self.look_at(second, redis_second, key, in_index, true);
        }

        fn look_at(&mut self, second: u64, redis_second: u64, key: NodeKey, in_index: bool, lease_alive: bool) {
            let member = ClusterMember {
                node: self.node,
                advertise: "a:1".to_owned(),
                version: "1".to_owned(),
                protocol: (1, 1),
                record: 1,
                key: NodeKey::Missing,
                lease_alive: false,
            };
            let index = in_index.then_some((self.node, member)).into_iter().collect();
            let look = Look { key, lease_alive, time_millis: redis_second * 1000 };
            let now = self.begin + Duration::from_secs(second);
            self.observations.note(
                LookTimes { sent: now, answered: now },
                &index,
                &HashMap::from([(self.node, look)]),
                WATCH,
                SLACK,
            );
        }

        #[track_caller]
        fn check(&self, member: bool, departed: bool) {
            assert_eq!(self.observations.members().contains_key(&self.node), member, "member");
            assert_eq!(self.observations.departed().contains_key(&self.node), departed, "departed");
        }
    }

    const LIVE: NodeKey = NodeKey::Live { epoch: 1 };

    #[test]
    fn a_node_that_left_is_gone_for_good_after_it_was_watched_long_enough() {
        let mut test = Test::new();
        test.look(0, 0, LIVE, true);
        test.look(1, 1, NodeKey::Missing, false);
        test.look(5, 5, NodeKey::Missing, false);
        test.check(true, false);
        test.look(6, 6, NodeKey::Missing, false);
        test.check(false, true);
        test.look(7, 7, LIVE, true);
        test.check(true, false);
    }

    #[test]
    fn a_watch_begins_anew_after_a_break_and_after_a_jump_of_redis_clock() {
        let mut test = Test::new();
        test.look(0, 0, LIVE, true);
        test.look(1, 1, NodeKey::Missing, false);
        test.observations.interrupt();
        test.look(6, 6, NodeKey::Missing, false);
        test.check(true, false);
        test.look(10, 12, NodeKey::Missing, false);
        test.check(true, false);
        test.look(14, 16, NodeKey::Missing, false);
        test.check(true, false);
        test.look(15, 17, NodeKey::Missing, false);
        test.check(false, true);
    }

    #[test]
    fn a_dead_node_stays_a_member_while_its_tombstone_is_there() {
        let mut test = Test::new();
        test.look(0, 0, LIVE, true);
        for second in (5..60).step_by(5) {
            test.look(second, second, NodeKey::Dead { epoch: 1 }, false);
            test.check(true, false);
        }
    }

    #[test]
    fn a_node_is_doomed_when_it_was_watched_without_a_break_and_has_no_lease() {
        let mut test = Test::new();
        let condemnable = |test: &Test, second: u64| {
            let candidates = test.observations.condemnable(test.begin + Duration::from_secs(second), WATCH);
            candidates.first().map(|candidate| (candidate.key, candidate.time_millis))
        };
        test.look_at(0, 0, LIVE, true, false);
        assert_eq!(condemnable(&test, 0), None);
        test.look_at(4, 4, LIVE, true, false);
        assert_eq!(condemnable(&test, 4), None);
        test.look_at(5, 5, LIVE, true, false);
        assert_eq!(condemnable(&test, 5), Some((LIVE, 5000)));
        test.look_at(6, 6, LIVE, true, true);
        assert_eq!(condemnable(&test, 6), None, "its lease is alive");
        test.look_at(7, 7, LIVE, false, false);
        assert_eq!(condemnable(&test, 7), None, "it is not in the index");
        test.look_at(8, 8, NodeKey::Missing, true, false);
        assert_eq!(condemnable(&test, 8), None, "its key has changed");
        test.look_at(13, 13, NodeKey::Missing, true, false);
        assert_eq!(condemnable(&test, 13), Some((NodeKey::Missing, 13_000)));
        test.observations.interrupt();
        assert_eq!(condemnable(&test, 14), None, "this node did not see");
        test.look_at(15, 15, NodeKey::Missing, true, false);
        test.observations.condemned(&test.node);
        assert_eq!(condemnable(&test, 30), None, "it is dead");
        assert_eq!(test.observations.dead()[0].key, NodeKey::Dead { epoch: 0 });
    }

    #[test]
    fn a_node_in_the_index_is_never_gone() {
        let mut test = Test::new();
        for second in (0..60).step_by(5) {
            test.look(second, second, NodeKey::Missing, true);
            test.check(true, false);
        }
    }
}
