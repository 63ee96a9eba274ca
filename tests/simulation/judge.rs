use std::collections::BTreeMap;

use tidegate_core::id::ConnectionId;

use crate::model::Model;
use crate::world::LEASE;

/// Lines of the trace that are kept.
const LINES_MAX: usize = 400;

/// Time for which an excused fault may still show, in ms.
const EXCUSED: u64 = 2 * LEASE.as_millis() as u64;

/// Writes down what happens, and says what must not have happened.
#[derive(Default)]
pub(crate) struct Judge {
    trace: Vec<String>,
    pub(crate) violations: Vec<String>,
    pub(crate) connections: BTreeMap<ConnectionId, Account>,
    /// When each place was last in a group that is cut from Redis together (R1).
    groups: BTreeMap<usize, u64>,
    /// When Redis last came back with an older state, and of when that was (R2).
    rolled_back: Option<(u64, u64)>,
    /// Redis has lost something.
    has_forgotten: bool,
    pub(crate) model: Model,
    pub(crate) counts: Counts,
}

/// The knowledge about one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) place: usize,
    /// The backend said yes, whoever heard it.
    pub(crate) is_accepted: bool,
    /// Time until which `$connect` is at the backend.
    connecting_until: u64,
    is_opened: bool,
    /// Redis had it before its backend was asked.
    is_recorded: bool,
    sent: Option<u64>,
    event: Option<String>,
    /// The backend has taken its `$disconnect`.
    pub(crate) is_told: bool,
    /// A push was answered 410.
    is_gone: bool,
    /// Every copy of its record was destroyed (R3).
    pub(crate) is_lost: bool,
    pub(crate) ended: Option<u64>,
}

/// For the report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    pub(crate) events: u64,
    pub(crate) repeated: u64,
    pub(crate) excused: u64,
    pub(crate) lost: u64,
    pub(crate) served: u64,
    pub(crate) pushes: u64,
    /// Memberships that were told.
    pub(crate) joins: u64,
    pub(crate) finds: u64,
    pub(crate) missed: u64,
    /// Longest time from the end of a connection to the first attempt, in ms.
    pub(crate) longest_delay: u64,
}

impl Judge {
    pub(crate) fn say(&mut self, now: u64, text: &str) {
        if self.trace.len() >= LINES_MAX {
            self.trace.remove(0);
        }
        self.trace.push(format!("{:>8.1} s  {text}", (now as f64 - 1_000_000.0) / 1000.0));
    }

    pub(crate) fn violation(&mut self, now: u64, text: String) {
        if self.violations.contains(&text) {
            return;
        }
        self.say(now, &format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    pub(crate) fn trace(&self) -> String {
        self.trace.join("\n")
    }

    pub(crate) fn in_group(&mut self, place: usize, now: u64) {
        self.groups.insert(place, now);
    }

    /// Redis comes back with what it had then.
    pub(crate) fn roll_back(&mut self, now: u64, had: u64) {
        self.rolled_back = Some((now, had));
        self.model.lose(now, had);
    }

    /// Redis comes back without all that it had.
    pub(crate) fn forget(&mut self) {
        self.has_forgotten = true;
    }

    fn is_excused(&self, place: usize, now: u64) -> bool {
        let lately = |at: Option<&u64>| at.is_some_and(|at| now <= at + EXCUSED);
        lately(self.groups.get(&place)) || lately(self.rolled_back.map(|(at, _)| at).as_ref())
    }

    /// Redis has lost that the node was condemned for which this event was sent, and it may have woken up since then.
    fn is_revived(&self, sent: Option<u64>) -> bool {
        self.rolled_back.zip(sent).is_some_and(|((at, had), sent)| had < sent && sent <= at)
    }

    fn account(&mut self, id: &ConnectionId) -> &mut Account {
        self.connections.entry(*id).or_default()
    }

    pub(crate) fn began(&mut self, place: usize, id: &ConnectionId) {
        self.counts.connections += 1;
        self.account(id).place = place;
    }

    /// A `$connect` came to the backend, which is at it until then.
    pub(crate) fn connecting(&mut self, now: u64, id: &ConnectionId, until: u64) {
        if self.account(id).sent.is_some() {
            self.violation(now, format!("I2: $connect of {id} after its $disconnect"));
        }
        self.account(id).connecting_until = until;
    }

    pub(crate) fn served(&mut self, now: u64, place: usize, id: &ConnectionId) {
        self.counts.served += 1;
        let account = self.account(id);
        let (sent, is_gone) = (account.sent, account.is_gone);
        if sent.is_none() && !is_gone {
            return;
        }
        if self.is_excused(place, now) || self.is_revived(sent) {
            self.counts.excused += 1;
            return;
        }
        let rule = if sent.is_some() { "I2: served after its $disconnect" } else { "I4: served after a 410" };
        self.violation(now, format!("{rule}: {id} at place {place}"));
    }

    /// A `$disconnect` came to the backend.
    pub(crate) fn sent(&mut self, now: u64, place: usize, id: &ConnectionId, event: &str) {
        let account = self.account(id);
        let (owner, connecting_until, ended) = (account.place, account.connecting_until, account.ended);
        let is_first = account.sent.is_none();
        account.sent.get_or_insert(now);
        let is_other = account.event.get_or_insert_with(|| event.to_owned()) != event;
        if is_other {
            self.violation(now, format!("I1: two events for {id}"));
        }
        if now < connecting_until {
            self.violation(now, format!("I3: $disconnect of {id} while its $connect is at the backend"));
        }
        self.say(now, &format!("    place {place} sends the $disconnect of {id} of place {owner}"));
        if is_first {
            self.counts.events += 1;
            let delay = now.saturating_sub(ended.unwrap_or(now));
            self.counts.longest_delay = self.counts.longest_delay.max(delay);
        } else {
            self.counts.repeated += 1;
        }
    }

    pub(crate) fn told(&mut self, id: &ConnectionId) {
        self.account(id).is_told = true;
    }

    /// It was recorded, and then its backend is asked.
    pub(crate) fn recorded(&mut self, id: &ConnectionId) {
        self.account(id).is_recorded = true;
    }

    /// Notes that the client has its 101.
    pub(crate) fn opened(&mut self, id: &ConnectionId) {
        self.account(id).is_opened = true;
    }

    pub(crate) fn ended(&mut self, now: u64, id: &ConnectionId) {
        self.account(id).ended.get_or_insert(now);
    }

    /// A push was answered 410.
    pub(crate) fn gone(&mut self, id: &ConnectionId) {
        let account = self.account(id);
        // Before its `$connect` is answered it is not there yet.
        account.is_gone |= account.is_opened || account.ended.is_some() || account.sent.is_some();
    }

    /// Only these have a copy somewhere: what happens to the others is excused.
    pub(crate) fn destroyed(&mut self, now: u64, has_copy: impl Fn(&ConnectionId) -> bool) {
        let has_forgotten = self.has_forgotten;
        let lost = self.connections.iter_mut().filter(|(id, account)| {
            // What was recorded is gone only if Redis has lost it.
            (has_forgotten || !account.is_recorded)
                && !account.is_told
                && !account.is_lost
                && (account.is_accepted || account.connecting_until > now)
                && !has_copy(id)
        });
        let mut ids = Vec::new();
        for (id, account) in lost {
            account.is_lost = true;
            ids.push(*id);
        }
        for id in ids {
            self.counts.lost += 1;
            self.say(now, &format!("    every copy of {id} is destroyed"));
        }
    }

    /// Everybody has left, and everything was well for long: I5.
    pub(crate) fn settled(&mut self, now: u64) {
        let missing = self.connections.iter().filter(|(_, account)| account.is_accepted && !account.is_told);
        let missing: Vec<ConnectionId> = missing.filter(|(_, account)| !account.is_lost).map(|(id, _)| *id).collect();
        for id in missing {
            self.violation(now, format!("I5: no $disconnect for {id} of place {}", self.connections[&id].place));
        }
    }

    /// I6.
    pub(crate) fn left_over(&mut self, now: u64, what: &str) {
        self.violation(now, format!("I6: Redis still has {what}"));
    }
}
