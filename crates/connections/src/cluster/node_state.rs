//! The registration of this node in Redis, as far as the node knows. Pure: answers and times come in, and what follows
//! from them goes out. The heartbeat sends the commands and carries out what follows.

use tokio::time::Instant;

use super::decide::{
    Evidence, Proof, RegistrationOutcome, RenewalOutcome, after_register, after_renew, is_same_run,
    others_have_records, proof,
};
use crate::redis_client::{NodeAnswer, NodeKey};

/// Most former epochs of this node that are remembered.
const EPOCHS_MAX: usize = 16;

/// The state of this node's registration.
#[derive(Debug)]
pub(super) struct NodeState {
    /// The epoch in the node key, or the one to register next.
    epoch: u64,
    /// Epochs that this node id had before in this process, the latest last.
    former: Vec<u64>,
    is_registered: bool,
    /// Set when Redis may have lost what it acknowledged and the Redis replica does not know yet.
    forgotten: bool,
    /// Run id of the Redis server; empty if the Redis user may not run `INFO`.
    run_id: Option<String>,
    attached_since: Option<Instant>,
}

/// The consequences of having been fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fenced {
    /// True if the node was registered under the id that it gives up.
    pub(super) was_registered: bool,
    /// True if the other nodes hold every record that Redis has acknowledged.
    pub(super) others_have_records: bool,
}

impl NodeState {
    /// Returns the state of a node that is to be registered with `epoch`.
    pub(super) fn new(epoch: u64) -> Self {
        NodeState {
            epoch,
            former: Vec::new(),
            is_registered: false,
            forgotten: false,
            run_id: None,
            attached_since: None,
        }
    }

    /// Returns the epoch in the node key, or the one to register next.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn is_registered(&self) -> bool {
        self.is_registered
    }

    /// Returns the time since which this node has been attached to Redis without a break, if it is attached.
    pub(super) fn attached_since(&self) -> Option<Instant> {
        self.attached_since
    }

    /// Returns true, once, after Redis may have lost what it acknowledged.
    pub(super) fn take_forgotten(&mut self) -> bool {
        std::mem::take(&mut self.forgotten)
    }

    /// Notes a new connection to Redis. Without `INFO` it may lead to another run of the server.
    pub(super) fn on_connected(&mut self) {
        if self.run_id.as_ref().is_some_and(String::is_empty) {
            self.forgotten = true;
        }
    }

    /// Notes the `answer` to a registration, and decides what it means. If the id is taken, the node is to be fenced.
    pub(super) fn on_registration(&mut self, answer: &NodeAnswer) -> RegistrationOutcome {
        let outcome = after_register(answer, self.epoch, &self.former);
        match outcome {
            RegistrationOutcome::Registered => self.is_registered = true,
            RegistrationOutcome::RolledBack { epoch } => {
                self.is_registered = true;
                self.take_back(epoch);
            }
            RegistrationOutcome::Taken { .. } | RegistrationOutcome::Unexpected => {}
        }
        outcome
    }

    /// Notes the `answer` to a renewal, and decides what it means. If Redis has forgotten the node, the node is to be
    /// registered anew, with the epoch that `draw` returns. `gate_is_open` is true if the serving lease has not run out.
    pub(super) fn on_renewal(
        &mut self,
        answer: &NodeAnswer,
        gate_is_open: bool,
        draw: impl FnOnce() -> u64,
    ) -> RenewalOutcome {
        let outcome = after_renew(answer, &self.former, gate_is_open);
        match outcome {
            RenewalOutcome::Forgotten => {
                self.replace_epoch(draw());
                self.is_registered = false;
            }
            RenewalOutcome::RolledBack { epoch } => self.take_back(epoch),
            RenewalOutcome::Renewed | RenewalOutcome::Fenced { .. } | RenewalOutcome::Unexpected => {}
        }
        outcome
    }

    /// Notes that the server with the run id `run_id` answered a survey, which was sent at `sent` and renewed the lease.
    /// Returns true if the server was restarted or has failed over since the last survey.
    pub(super) fn on_attached(&mut self, run_id: String, sent: Instant) -> bool {
        let former = self.run_id.replace(run_id);
        self.attached_since.get_or_insert(sent);
        let (Some(former), Some(run_id)) = (former, &self.run_id) else { return false };
        let is_other = former != *run_id;
        self.forgotten |= is_other;
        is_other && !former.is_empty() && !run_id.is_empty()
    }

    /// Notes that the heartbeat failed.
    pub(super) fn on_failed(&mut self) {
        self.attached_since = None;
    }

    /// Decides what `evidence` proves, which was gathered because Redis does not answer.
    pub(super) fn proof(&self, evidence: &Evidence<'_>, gate_is_open: bool) -> Proof {
        proof(evidence, &self.former, gate_is_open)
    }

    /// Notes that this node's key was found to be `found` on the server with the run id `run_id`, so that the node is
    /// fenced. Under its next id it registers with `epoch`.
    pub(super) fn on_fenced(&mut self, found: NodeKey, run_id: &str, epoch: u64) -> Fenced {
        let is_same_run = self.run_id.as_deref().is_some_and(|known| is_same_run(known, run_id));
        let others_have_records = others_have_records(found, self.epoch, is_same_run);
        let was_registered = std::mem::replace(&mut self.is_registered, false);
        self.former.clear();
        self.epoch = epoch;
        self.forgotten = true;
        Fenced { was_registered, others_have_records }
    }

    /// Takes `epoch` again, which this node had before: Redis came back with an older state.
    fn take_back(&mut self, epoch: u64) {
        self.former.retain(|former| *former != epoch);
        self.replace_epoch(epoch);
    }

    fn replace_epoch(&mut self, epoch: u64) {
        self.former.push(std::mem::replace(&mut self.epoch, epoch));
        if self.former.len() > EPOCHS_MAX {
            self.former.remove(0);
        }
        self.forgotten = true;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DEAD: NodeKey = NodeKey::Dead { epoch: 5 };

    /// Returns a node with epoch 5 that has been attached to the run `run` since `at`.
    fn attached(run: &str, at: Instant) -> NodeState {
        let mut state = NodeState::new(5);
        assert_eq!(state.on_registration(&NodeAnswer::Done), RegistrationOutcome::Registered);
        assert!(!state.on_attached(run.to_owned(), at));
        assert!(!state.take_forgotten());
        state
    }

    fn never() -> u64 {
        panic!("no epoch is to be drawn")
    }

    #[test]
    fn a_node_that_redis_has_forgotten_registers_with_a_new_epoch_and_remembers_the_old_one() {
        let mut state = attached("a", Instant::now());
        let missing = NodeAnswer::Refused(NodeKey::Missing);
        assert_eq!(state.on_renewal(&missing, true, || 6), RenewalOutcome::Forgotten);
        assert_eq!((state.epoch(), state.is_registered()), (6, false));
        assert!(state.take_forgotten() && !state.take_forgotten());
        let old = NodeAnswer::Refused(NodeKey::Live { epoch: 5 });
        assert_eq!(state.on_registration(&old), RegistrationOutcome::RolledBack { epoch: 5 });
        assert_eq!((state.epoch(), state.is_registered()), (5, true));
        assert!(state.take_forgotten());
        // The other epoch is a former one now.
        let other = NodeAnswer::Refused(NodeKey::Live { epoch: 6 });
        assert_eq!(state.on_renewal(&other, true, never), RenewalOutcome::RolledBack { epoch: 6 });
        assert_eq!((state.epoch(), state.is_registered()), (6, true));
    }

    #[test]
    fn only_the_last_epochs_are_remembered() {
        let mut state = attached("a", Instant::now());
        let missing = NodeAnswer::Refused(NodeKey::Missing);
        let last = 6 + EPOCHS_MAX as u64;
        for epoch in 6..=last {
            state.on_renewal(&missing, true, || epoch);
        }
        let live = |epoch| NodeAnswer::Refused(NodeKey::Live { epoch });
        let outcome = state.on_renewal(&live(5), true, never);
        assert_eq!(outcome, RenewalOutcome::Fenced { found: NodeKey::Live { epoch: 5 } });
        assert_eq!(state.on_renewal(&live(6), true, never), RenewalOutcome::RolledBack { epoch: 6 });
    }

    #[test]
    fn redis_may_have_lost_data_when_its_run_has_changed_or_is_unknown() {
        let check = |before: &str, after: &str, forgotten: bool, restarted: bool| {
            let mut state = attached(before, Instant::now());
            state.on_connected();
            assert_eq!(state.on_attached(after.to_owned(), Instant::now()), restarted, "{before} {after}");
            assert_eq!(state.take_forgotten(), forgotten, "{before} {after}");
        };
        check("a", "a", false, false);
        check("a", "b", true, true);
        check("a", "", true, false);
        check("", "a", true, false);
        check("", "", true, false);
    }

    #[test]
    fn a_node_is_attached_since_the_first_answer_after_the_last_failure() {
        let begin = Instant::now();
        let mut state = attached("a", begin);
        state.on_attached("a".to_owned(), begin + Duration::from_secs(1));
        assert_eq!(state.attached_since(), Some(begin));
        state.on_failed();
        assert_eq!(state.attached_since(), None);
        state.on_attached("a".to_owned(), begin + Duration::from_secs(2));
        assert_eq!(state.attached_since(), Some(begin + Duration::from_secs(2)));
    }

    #[test]
    fn a_fenced_node_forgets_its_epochs_and_knows_if_others_have_its_records() {
        let check = |found: NodeKey, run: &str, others_have_records: bool| {
            let mut state = attached("a", Instant::now());
            let fenced = state.on_fenced(found, run, 9);
            assert_eq!(fenced, Fenced { was_registered: true, others_have_records }, "{found:?} {run}");
            assert_eq!((state.epoch(), state.is_registered()), (9, false));
            assert!(state.take_forgotten());
            let outcome = state.on_registration(&NodeAnswer::Refused(NodeKey::Live { epoch: 5 }));
            assert!(matches!(outcome, RegistrationOutcome::Taken { .. }));
            assert!(!state.on_fenced(found, "", 10).was_registered);
        };
        check(DEAD, "a", true);
        check(DEAD, "b", false);
        check(DEAD, "", false);
        check(NodeKey::Dead { epoch: 4 }, "a", false);
        check(NodeKey::Missing, "a", false);
    }
}
