//! Decisions on what an answer of Redis means for this node. Pure: values in, values out.

use super::RelayedRenewal;
use super::reaper::scripts::KeptClaim;
use crate::redis_client::{NodeAnswer, NodeKey, Reach};

/// The meaning of the answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RenewalOutcome {
    /// The lease is renewed.
    Renewed,
    /// Redis has forgotten this node, which may register anew: nobody can have condemned it.
    Forgotten,
    /// Redis came back with an older state, in which this node has an epoch that it had before.
    RolledBack { epoch: u64 },
    /// This node was condemned, or may have been: its connections belong to other nodes.
    Fenced { found: NodeKey },
    /// An answer that no script gives.
    Unexpected,
}

/// The meaning of the answer to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegistrationOutcome {
    /// This node is registered.
    Registered,
    /// This node is registered, under an epoch that it had before.
    RolledBack { epoch: u64 },
    /// Another node has this id, or had it: this node needs another one.
    Taken { found: NodeKey },
    /// An answer that no script gives.
    Unexpected,
}

/// Decides what the `answer` to a renewal means. `former` are the epochs that this node id had before in this process.
/// Epochs are random, so a key says which process wrote it, even if the answer to the call that wrote it was lost.
/// `gate_is_open` is true if the serving lease has not run out.
pub(super) fn after_renew(answer: &NodeAnswer, former: &[u64], gate_is_open: bool) -> RenewalOutcome {
    match *answer {
        NodeAnswer::Done => RenewalOutcome::Renewed,
        NodeAnswer::Refused(NodeKey::Missing) if gate_is_open => RenewalOutcome::Forgotten,
        NodeAnswer::Refused(NodeKey::Live { epoch }) if former.contains(&epoch) => RenewalOutcome::RolledBack { epoch },
        // There is no key, or a tombstone: this node may have been condemned, its connections taken over and its key
        // removed while this process stood still.
        NodeAnswer::Refused(found) => RenewalOutcome::Fenced { found },
        NodeAnswer::Unexpected(_) => RenewalOutcome::Unexpected,
    }
}

/// Decides what the `answer` to a registration means. `epoch` is the one to be registered, `former` those that this
/// node id had before.
pub(super) fn after_register(answer: &NodeAnswer, epoch: u64, former: &[u64]) -> RegistrationOutcome {
    match *answer {
        NodeAnswer::Done => RegistrationOutcome::Registered,
        // This process wrote the key: the answer to an earlier try was lost.
        NodeAnswer::Refused(NodeKey::Live { epoch: there }) if there == epoch => RegistrationOutcome::Registered,
        NodeAnswer::Refused(NodeKey::Live { epoch }) if former.contains(&epoch) => {
            RegistrationOutcome::RolledBack { epoch }
        }
        NodeAnswer::Refused(found @ (NodeKey::Live { .. } | NodeKey::Dead { .. })) => {
            RegistrationOutcome::Taken { found }
        }
        NodeAnswer::Refused(NodeKey::Missing) | NodeAnswer::Unexpected(_) => RegistrationOutcome::Unexpected,
    }
}

/// The proof of life of a node that Redis does not answer, or the lack of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A peer has renewed the lease: nobody can have condemned this node. Renews a serving lease that has run out, too.
    Renewed,
    /// Redis is away for all nodes, as far as this node can tell. Extends a serving lease that has not run out, as the
    /// next two do.
    RedisIsAway,
    PeerIsDetached,
    /// Every other node has left, or nothing listens at its address.
    Alone,
    /// A peer knows that this node was condemned.
    Fenced {
        found: NodeKey,
        run_id: String,
    },
    /// There is no proof: this node may be condemned as soon as its lease is over.
    None,
}

/// The evidence that a node gathers while Redis does not answer it.
#[derive(Clone, Debug)]
pub(super) struct Evidence<'a> {
    /// Answers of the linked peers.
    pub(super) relayed: &'a [RelayedRenewal],
    /// Reaction of the address of Redis to a new connection.
    pub(super) redis: Reach,
    /// Reactions of the addresses of all other nodes that are known and have not left.
    pub(super) peers: &'a [Reach],
}

/// Decides what `evidence` proves. A peer that reached Redis counts before everything else.
pub(super) fn proof(evidence: &Evidence<'_>, former: &[u64], gate_is_open: bool) -> Proof {
    let mut is_renewed = false;
    for relayed in evidence.relayed {
        let RelayedRenewal::Answered { renewal, run_id } = relayed else { continue };
        match after_renew(renewal, former, gate_is_open) {
            RenewalOutcome::Renewed => is_renewed = true,
            RenewalOutcome::Fenced { found } => return Proof::Fenced { found, run_id: run_id.clone() },
            // The next step of these needs Redis itself.
            RenewalOutcome::Forgotten | RenewalOutcome::RolledBack { .. } | RenewalOutcome::Unexpected => {}
        }
    }
    match evidence.redis {
        _ if is_renewed => Proof::Renewed,
        _ if !gate_is_open => Proof::None,
        // A server that accepts connections and then does not answer, or only with errors, does so for all nodes.
        Reach::Refused | Reach::Accepted => Proof::RedisIsAway,
        Reach::Silent if evidence.relayed.contains(&RelayedRenewal::Detached) => Proof::PeerIsDetached,
        Reach::Silent if evidence.peers.iter().all(|peer| *peer == Reach::Refused) => Proof::Alone,
        Reach::Silent => Proof::None,
    }
}

/// Returns true if two answers certainly come from the same run of a Redis server. Without the right to run `INFO` it
/// is never certain.
pub(super) fn is_same_run(one: &str, other: &str) -> bool {
    !one.is_empty() && one == other
}

/// Returns true if the other nodes hold every record that was acknowledged, now that this node is fenced. They do if
/// `found` is the tombstone of its present registration `epoch`, so Redis had its records, and if the server is the
/// same run as before, so it has not lost the last of them since.
pub(super) fn others_have_records(found: NodeKey, epoch: u64, is_same_run: bool) -> bool {
    is_same_run && found == NodeKey::Dead { epoch }
}

/// The outcome of renewing a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimRenewal {
    /// The claim is renewed.
    Kept,
    /// Another node has the bucket: this node forgets what it holds of it.
    Lost,
    /// Redis has forgotten the claim: this node writes back what it holds, and reads nothing over it.
    Restore,
    /// This process stood still, and others may have gone on: this node claims the bucket and reads it again.
    Reload,
}

/// Decides what became of a claim, which was to be renewed. `fresh` is true if the claim had not run out by this node's
/// clock, and `is_same_run` if the Redis server has not been restarted since it granted the claim.
pub(super) fn after_keep(claim: KeptClaim, fresh: bool, is_same_run: bool) -> ClaimRenewal {
    match claim {
        KeptClaim::Renewed => ClaimRenewal::Kept,
        KeptClaim::Taken => ClaimRenewal::Lost,
        KeptClaim::Gone { key: Some(NodeKey::Dead { epoch: 1.. }) } if !fresh && is_same_run => ClaimRenewal::Reload,
        KeptClaim::Gone { .. } => ClaimRenewal::Restore,
    }
}

/// Returns true if a bucket of `bucket` records may be claimed: they and the `held` ones are at most `max`, or nothing
/// is held.
pub(super) fn may_claim(held: usize, bucket: usize, max: usize) -> bool {
    held == 0 || held.saturating_add(bucket) <= max
}

/// Returns the buckets whose number of records was wrong twice in a row, as bits. `before` are the buckets that
/// differed at the look before and were not reported then, and `now` those that differ at this one.
pub(super) fn drifted(before: u16, now: u16) -> u16 {
    before & now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_renewal_says() {
        let fenced = |key| RenewalOutcome::Fenced { found: NodeKey::parse(key).unwrap() };
        let check = |answer: &str, gate: bool, expected: RenewalOutcome| {
            assert_eq!(after_renew(&NodeAnswer::parse(answer), &[7, 8], gate), expected, "{answer} {gate}");
        };
        for gate in [true, false] {
            check("OK", gate, RenewalOutcome::Renewed);
            check("dead 7", gate, fenced("dead 7"));
            check("dead 0", gate, fenced("dead 0"));
            check("live 8", gate, RenewalOutcome::RolledBack { epoch: 8 });
            check("live 9", gate, fenced("live 9"));
            check("gone", gate, RenewalOutcome::Unexpected);
            check("live x", gate, RenewalOutcome::Unexpected);
            check("", gate, RenewalOutcome::Unexpected);
        }
        check("MISSING", true, RenewalOutcome::Forgotten);
        check("MISSING", false, fenced("MISSING"));
    }

    fn answered(renewal: &str) -> RelayedRenewal {
        RelayedRenewal::Answered { renewal: NodeAnswer::parse(renewal), run_id: "run".to_owned() }
    }

    #[test]
    fn what_proves_that_a_node_may_serve() {
        let check = |relayed: &[RelayedRenewal], redis, peers: &[Reach], open: Proof, shut: Proof| {
            let evidence = Evidence { relayed, redis, peers };
            assert_eq!(proof(&evidence, &[7], true), open, "{evidence:?} open");
            assert_eq!(proof(&evidence, &[7], false), shut, "{evidence:?} shut");
        };
        let (ok, detached) = (answered("OK"), RelayedRenewal::Detached);
        let fenced = |found: &str| Proof::Fenced { found: NodeKey::parse(found).unwrap(), run_id: "run".to_owned() };
        let (silent, up) = (Reach::Silent, Reach::Accepted);
        // A renewal through a peer renews a serving lease that has run out, whatever the other evidence is.
        check(std::slice::from_ref(&ok), silent, &[up], Proof::Renewed, Proof::Renewed);
        check(&[detached.clone(), ok.clone()], Reach::Refused, &[], Proof::Renewed, Proof::Renewed);
        // A peer that knows of a condemnation counts before all others.
        check(&[ok, answered("dead 3")], silent, &[], fenced("dead 3"), fenced("dead 3"));
        check(&[answered("dead 0"), detached.clone()], Reach::Refused, &[], fenced("dead 0"), fenced("dead 0"));
        check(&[answered("live 9")], silent, &[up], fenced("live 9"), fenced("live 9"));
        check(&[answered("MISSING")], silent, &[up], Proof::None, fenced("MISSING"));
        check(&[answered("live 7")], silent, &[up], Proof::None, Proof::None);
        check(&[answered("what")], silent, &[up], Proof::None, Proof::None);
        // A proof only that nobody else reaches Redis extends a serving lease and never begins one.
        check(&[], Reach::Refused, &[up], Proof::RedisIsAway, Proof::None);
        check(&[], Reach::Accepted, &[silent], Proof::RedisIsAway, Proof::None);
        check(std::slice::from_ref(&detached), silent, &[silent], Proof::PeerIsDetached, Proof::None);
        check(&[], silent, &[Reach::Refused, Reach::Refused], Proof::Alone, Proof::None);
        check(&[], silent, &[], Proof::Alone, Proof::None);
        // Cut off from Redis and from all peers.
        check(&[], silent, &[Reach::Refused, silent], Proof::None, Proof::None);
        check(&[], silent, &[up], Proof::None, Proof::None);
    }

    #[test]
    fn records_are_left_to_others_only_if_they_have_them_for_certain() {
        let check = |found: &str, same: bool, expected: bool| {
            assert_eq!(others_have_records(NodeKey::parse(found).unwrap(), 5, same), expected, "{found} {same}");
        };
        check("dead 5", true, true);
        check("dead 5", false, false); // the server may have lost the last writes
        check("dead 4", true, false); // condemned from an older state
        check("dead 0", true, false); // condemned from the index alone
        check("MISSING", true, false);
        check("live 9", true, false);
    }

    #[test]
    fn a_run_that_is_not_known_is_no_run_that_was_known() {
        assert!(is_same_run("a", "a"));
        assert!(!is_same_run("a", "b"));
        assert!(!is_same_run("a", ""));
        assert!(!is_same_run("", ""));
    }

    #[test]
    fn what_becomes_of_a_claim() {
        let check = |claim: KeptClaim, fresh: bool, same: bool, expected: ClaimRenewal| {
            assert_eq!(after_keep(claim, fresh, same), expected, "{claim:?} {fresh} {same}");
        };
        let gone = |found: &str| KeptClaim::Gone { key: NodeKey::parse(found) };
        for (fresh, same) in [(true, true), (true, false), (false, true), (false, false)] {
            check(KeptClaim::Renewed, fresh, same, ClaimRenewal::Kept);
            check(KeptClaim::Taken, fresh, same, ClaimRenewal::Lost);
            check(gone("MISSING"), fresh, same, ClaimRenewal::Restore);
            check(gone("live 5"), fresh, same, ClaimRenewal::Restore);
            check(gone("dead 0"), fresh, same, ClaimRenewal::Restore);
            check(gone("what"), fresh, same, ClaimRenewal::Restore);
        }
        check(gone("dead 5"), true, true, ClaimRenewal::Restore); // it cannot have lapsed
        check(gone("dead 5"), false, false, ClaimRenewal::Restore); // an older state came back
        check(gone("dead 5"), false, true, ClaimRenewal::Reload); // it lapsed: others may have been there
    }

    #[test]
    fn buckets_are_claimed_while_there_is_room() {
        assert!(may_claim(0, 1_000_000, 10), "one always");
        assert!(may_claim(4, 6, 10));
        assert!(!may_claim(5, 6, 10));
    }

    #[test]
    fn what_a_registration_says() {
        let taken = |key| RegistrationOutcome::Taken { found: NodeKey::parse(key).unwrap() };
        let check = |answer: &str, expected: RegistrationOutcome| {
            assert_eq!(after_register(&NodeAnswer::parse(answer), 9, &[7]), expected, "{answer}");
        };
        check("OK", RegistrationOutcome::Registered);
        check("live 9", RegistrationOutcome::Registered);
        check("live 7", RegistrationOutcome::RolledBack { epoch: 7 });
        check("live 1", taken("live 1"));
        check("dead 9", taken("dead 9"));
        check("dead 0", taken("dead 0"));
        check("MISSING", RegistrationOutcome::Unexpected);
        check("what", RegistrationOutcome::Unexpected);
    }
}
