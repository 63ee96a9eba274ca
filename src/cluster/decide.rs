//! What an answer of Redis means for this node. Pure: values in, values out.

use super::NodeKey;
use crate::redis_client::scripts::{MISSING, OK};

/// What the answer to a renewal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The lease is renewed.
    Renewed,
    /// Redis forgot this node, which may register anew: nobody can have condemned it.
    Forgotten,
    /// Redis came back with what it held under an epoch that this node had before.
    RolledBack { epoch: u64 },
    /// This node was condemned, or may have been: its connections belong to others.
    Fenced,
    /// No script gives such an answer.
    Unexpected,
}

/// What the answer to a registration means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registration {
    /// This node is registered.
    Registered,
    /// It is, under an epoch that it had before.
    RolledBack { epoch: u64 },
    /// Another node has this id, or had it: another id is needed.
    Taken,
    /// No script gives such an answer.
    Unexpected,
}

/// Reads a node key, or what a script answers when there is none.
pub(super) fn node_key(text: &str) -> Option<NodeKey> {
    match text.split_once(' ') {
        Some(("live", epoch)) => Some(NodeKey::Live { epoch: epoch.parse().ok()? }),
        Some(("dead", epoch)) => Some(NodeKey::Dead { epoch: epoch.parse().ok()? }),
        Some(_) => None,
        None => (text == MISSING).then_some(NodeKey::Missing),
    }
}

/// `former` are the epochs that this node id had before in this process. Epochs are random, so that a key says whose it
/// is, also when the answer to the call that made it was lost.
pub(super) fn after_renew(answer: &str, former: &[u64], gate_is_open: bool) -> Renewal {
    if answer == OK {
        return Renewal::Renewed;
    }
    match node_key(answer) {
        Some(NodeKey::Missing) if gate_is_open => Renewal::Forgotten,
        // It may have been condemned, reaped and buried while this process stood still.
        Some(NodeKey::Missing | NodeKey::Dead { .. }) => Renewal::Fenced,
        Some(NodeKey::Live { epoch }) if former.contains(&epoch) => Renewal::RolledBack { epoch },
        Some(NodeKey::Live { .. }) => Renewal::Fenced,
        None => Renewal::Unexpected,
    }
}

/// `epoch` is the one that was to be registered.
pub(super) fn after_register(answer: &str, epoch: u64, former: &[u64]) -> Registration {
    if answer == OK {
        return Registration::Registered;
    }
    match node_key(answer) {
        // The answer to an earlier try was lost.
        Some(NodeKey::Live { epoch: there }) if there == epoch => Registration::Registered,
        Some(NodeKey::Live { epoch }) if former.contains(&epoch) => Registration::RolledBack { epoch },
        Some(NodeKey::Live { .. } | NodeKey::Dead { .. }) => Registration::Taken,
        Some(NodeKey::Missing) | None => Registration::Unexpected,
    }
}

/// Buckets that had another number of records than they should twice in a row, as bits. `before` and the result of this
/// look are the buckets that differ.
pub(super) fn drifted(before: u16, now: u16) -> u16 {
    before & now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_renewal_says() {
        let check = |answer: &str, gate: bool, expected: Renewal| {
            assert_eq!(after_renew(answer, &[7, 8], gate), expected, "{answer} {gate}");
        };
        for gate in [true, false] {
            check("OK", gate, Renewal::Renewed);
            check("dead 7", gate, Renewal::Fenced);
            check("dead 0", gate, Renewal::Fenced);
            check("live 8", gate, Renewal::RolledBack { epoch: 8 });
            check("live 9", gate, Renewal::Fenced);
            check("gone", gate, Renewal::Unexpected);
            check("live x", gate, Renewal::Unexpected);
            check("", gate, Renewal::Unexpected);
        }
        check("MISSING", true, Renewal::Forgotten);
        check("MISSING", false, Renewal::Fenced);
    }

    #[test]
    fn what_a_registration_says() {
        let check =
            |answer: &str, expected: Registration| assert_eq!(after_register(answer, 9, &[7]), expected, "{answer}");
        check("OK", Registration::Registered);
        check("live 9", Registration::Registered);
        check("live 7", Registration::RolledBack { epoch: 7 });
        check("live 1", Registration::Taken);
        check("dead 9", Registration::Taken);
        check("dead 0", Registration::Taken);
        check("MISSING", Registration::Unexpected);
        check("what", Registration::Unexpected);
    }
}
