use std::collections::{BTreeMap, BTreeSet};

use tidegate_connections::group_index::MemberNodes;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::topic::TopicName;

use crate::judge::Judge;
use crate::members::Members;
use crate::world::Inner;

/// Longest freshness lease of a node, from the time at which Redis accepted it, in ms.
const WORD: u64 = 1_100;

/// Time for which an answer of Redis may be on its way, in ms.
const ANSWER: u64 = 200;

/// The members of each group, kept as simply as can be.
#[derive(Default)]
pub(crate) struct Model {
    members: BTreeMap<(ConnectionId, TopicName), Membership>,
    joins: u64,
    /// When Redis came back with what it had had when (R4).
    losses: Vec<(u64, u64)>,
}

struct Membership {
    place: usize,
    /// Tells it from an earlier one of the same client in the same group.
    number: u64,
    /// Since then its backend knows that it is one.
    acknowledged: Option<u64>,
}

impl Model {
    /// The number of the membership, also if it was one before.
    pub(crate) fn join(&mut self, place: usize, id: &ConnectionId, name: &TopicName) -> u64 {
        self.joins += 1;
        let new = Membership { place, number: self.joins, acknowledged: None };
        self.members.entry((*id, name.clone())).or_insert(new).number
    }

    pub(crate) fn leave(&mut self, id: &ConnectionId, name: &TopicName) {
        self.members.remove(&(*id, name.clone()));
    }

    pub(crate) fn end(&mut self, id: &ConnectionId) {
        self.members.retain(|(member, _), _| member != id);
    }

    /// The process at this place is dead.
    pub(crate) fn kill(&mut self, place: usize) {
        self.members.retain(|_, membership| membership.place != place);
    }

    /// Redis came back with what it had had then.
    pub(crate) fn lose(&mut self, now: u64, had: u64) {
        self.losses.push((had, now));
    }

    /// R4: it was told just before Redis lost that, when a word was given that lasts still.
    fn is_excused(&self, acknowledged: u64, began: u64) -> bool {
        let is_lost = |(had, lost): &(u64, u64)| *had < acknowledged && acknowledged <= lost + ANSWER;
        self.losses.iter().any(|loss| is_lost(loss) && began <= loss.0 + WORD)
    }

    /// All memberships, with their places.
    pub(crate) fn all(&self) -> BTreeMap<(ConnectionId, TopicName), usize> {
        self.members.iter().map(|(key, membership)| (key.clone(), membership.place)).collect()
    }

    /// Returns the number of members of a node.
    pub(crate) fn count(&self, node: &NodeId, name: &TopicName) -> usize {
        self.members.keys().filter(|(id, joined)| id.node() == *node && joined == name).count()
    }
}

impl Judge {
    /// A backend was told of it.
    pub(crate) fn acknowledged(&mut self, now: u64, id: &ConnectionId, name: &TopicName, number: u64) {
        if let Some(membership) = self.model.members.get_mut(&(*id, name.clone()))
            && membership.number == number
        {
            membership.acknowledged.get_or_insert(now);
            self.counts.joins += 1;
        }
    }

    /// A place asked at `began` who may have members, and is answered now. I7: whoever was told before to be a member, and is
    /// one still, is not missed, unless his node has another id meanwhile and closes him.
    pub(crate) fn found(
        &mut self,
        (by, began, now): (usize, u64, u64),
        names: &[TopicName],
        found: Option<&MemberNodes>,
        present: &BTreeMap<usize, NodeId>,
    ) {
        let Some(holders) = found else { return };
        self.counts.finds += 1;
        let mut missed = Vec::new();
        for ((id, name), membership) in &self.model.members {
            let Some(acknowledged) = membership.acknowledged.filter(|acknowledged| *acknowledged < began) else {
                continue;
            };
            let is_asked = !names.contains(name) || holders.may_have(&id.node(), std::slice::from_ref(name));
            if is_asked || present.get(&membership.place) != Some(&id.node()) {
                continue;
            }
            if self.model.is_excused(acknowledged, began) {
                self.counts.missed += 1;
            } else {
                let at = (acknowledged as f64 - 1_000_000.0) / 1000.0;
                let place = membership.place;
                missed.push(format!("I7: {by} misses {id} of {place}, told at {at} s to be in {}", name.as_str()));
            }
        }
        missed.into_iter().for_each(|text| self.violation(now, text));
    }
}

impl Inner {
    /// I8: everybody is where he has joined and nowhere else, and Redis has the right number of each living node.
    pub(crate) fn check_members(&mut self, all: &BTreeMap<(ConnectionId, TopicName), usize>, live: &[NodeId]) {
        let mut wrong = Vec::new();
        let model = &self.judge.model;
        if *all != model.all() {
            wrong.push(format!("members are {all:?} instead of {:?}", model.all()));
        }
        let leases = self.store.fields("t:roster");
        for node in live {
            let until = leases.get(&node.to_string()).and_then(|word| word.split(' ').nth(1)?.parse::<u64>().ok());
            if until.is_none_or(|until| until <= self.now + self.clock_ahead) {
                wrong.push(format!("{node} has not given its word: {leases:?}"));
            }
            let mut topics = BTreeSet::new();
            for name in Members::names() {
                let (key, count) = (Members::key(&name), model.count(node, &name));
                let written = self.store.fields(&key).remove(&node.to_string());
                if written != (count > 0).then(|| count.to_string()) {
                    wrong.push(format!("{node} has {count} in {key}, where {written:?} is written"));
                }
                if count > 0 {
                    topics.insert(key);
                }
            }
            let written: BTreeSet<String> = self.store.fields(&format!("t:{{{node}}}:t")).into_keys().collect();
            if written != topics {
                wrong.push(format!("{node} has members in {topics:?}, where {written:?} is written"));
            }
        }
        let now = self.now;
        wrong.into_iter().for_each(|text| self.judge.violation(now, format!("I8: {text}")));
    }
}
