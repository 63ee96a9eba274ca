//! Places for strangers: connections to the peer port that have not proved yet that they come from a peer.
//!
//! The number of places is bounded, but no new connection is refused for lack of a place. Instead the oldest silent
//! stranger loses its place. A peer sends Hello at once and proves itself a moment later, so it is no stranger any more
//! before its place would be taken, however many silent strangers connect.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use tidegate_core::limits::network_of;
use tidegate_core::lock::lock;

/// Number of places of all strangers together.
pub(super) const PLACES: usize = 256;

/// Number of places of one IPv4 address or one /64 of IPv6.
pub(super) const PLACES_PER_ADDRESS: usize = PLACES / 2;

#[derive(Debug, Default)]
pub(super) struct Strangers {
    taken: Mutex<TakenSlots>,
}

/// The taken places by their number, which is the order of arrival.
#[derive(Debug, Default)]
struct TakenSlots {
    next: u64,
    places: BTreeMap<u64, Stranger>,
}

#[derive(Debug)]
struct Stranger {
    address: IpAddr,
    /// True if the stranger has sent a correct Hello.
    has_spoken: bool,
    lost: CancellationToken,
}

/// The place of one stranger, until it is dropped or lost.
#[derive(Debug)]
pub(super) struct StrangerSlot {
    strangers: Arc<Strangers>,
    number: u64,
    lost: CancellationToken,
}

impl Strangers {
    /// Gives a place to a stranger from `ip`. Another stranger may lose its place.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> StrangerSlot {
        let (address, lost) = (network_of(ip), CancellationToken::new());
        let mut taken = self.lock();
        if let Some(loser) = loser(&taken.places, address).and_then(|number| taken.places.remove(&number)) {
            loser.lost.cancel();
        }
        let number = taken.next;
        taken.next += 1;
        taken.places.insert(number, Stranger { address, has_spoken: false, lost: lost.clone() });
        StrangerSlot { strangers: Arc::clone(self), number, lost }
    }

    fn lock(&self) -> MutexGuard<'_, TakenSlots> {
        lock(&self.taken)
    }
}

/// Returns the place that is taken away for a stranger from `address`, if one must be: a place of the same address if
/// it has its full share, otherwise a place of the address with the most places if all are taken. Silent strangers lose
/// theirs first, the oldest before the others.
fn loser(places: &BTreeMap<u64, Stranger>, address: IpAddr) -> Option<u64> {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    places.values().for_each(|stranger| *counts.entry(stranger.address).or_default() += 1);
    let from = match counts.get(&address) {
        Some(count) if *count >= PLACES_PER_ADDRESS => address,
        _ if places.len() >= PLACES => counts.into_iter().max_by_key(|(_, count)| *count)?.0,
        _ => return None,
    };
    let of_address = || places.iter().filter(|(_, stranger)| stranger.address == from);
    let silent = of_address().find(|(_, stranger)| !stranger.has_spoken);
    silent.or_else(|| of_address().next()).map(|(number, _)| *number)
}

impl StrangerSlot {
    /// Notes that the stranger has sent a correct Hello.
    pub(super) fn has_spoken(&self) {
        if let Some(stranger) = self.strangers.lock().places.get_mut(&self.number) {
            stranger.has_spoken = true;
        }
    }

    /// Resolves when the place was taken away.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for StrangerSlot {
    fn drop(&mut self) {
        self.strangers.lock().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Test {
        strangers: Arc<Strangers>,
        places: Vec<StrangerSlot>,
    }

    impl Test {
        fn new() -> Self {
            Test { strangers: Arc::default(), places: Vec::new() }
        }

        fn come(&mut self, ip: &str, count: usize) {
            for _ in 0..count {
                self.places.push(self.strangers.admit(ip.parse().unwrap()));
            }
        }

        fn lost(&self) -> Vec<usize> {
            (0..self.places.len()).filter(|number| self.places[*number].lost.is_cancelled()).collect()
        }
    }

    #[test]
    fn one_address_has_half_of_the_places_and_loses_its_own() {
        let mut test = Test::new();
        test.come("127.0.0.1", PLACES_PER_ADDRESS);
        assert!(test.lost().is_empty());
        test.come("127.0.0.1", 2);
        assert_eq!(test.lost(), [0, 1], "the first who came");
        test.come("127.0.0.2", PLACES_PER_ADDRESS);
        assert_eq!(test.lost(), [0, 1], "another has its own half");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let mut test = Test::new();
        for host in 0..=PLACES_PER_ADDRESS {
            test.come(&format!("2001:db8::{host:x}"), 1);
        }
        assert_eq!(test.lost(), [0]);
        test.come("::ffff:127.0.0.1", 1);
        assert_eq!(test.lost(), [0]);
    }

    #[test]
    fn when_all_are_taken_the_address_with_most_gives_one() {
        let mut test = Test::new();
        test.come("127.0.0.1", 100);
        test.come("127.0.0.2", 120);
        test.come("127.0.0.3", 36);
        assert!(test.lost().is_empty());
        test.come("127.0.0.4", 2);
        assert_eq!(test.lost(), [100, 101]);
    }

    #[test]
    fn who_has_spoken_stays_while_others_are_silent() {
        let mut test = Test::new();
        test.come("127.0.0.1", PLACES_PER_ADDRESS);
        test.places[0].has_spoken();
        test.come("127.0.0.1", 1);
        assert_eq!(test.lost(), [1]);
        test.places.iter().for_each(StrangerSlot::has_spoken);
        test.come("127.0.0.1", 1);
        assert_eq!(test.lost(), [0, 1], "words alone are no proof");
    }

    #[test]
    fn a_place_is_free_when_it_is_given_back() {
        let mut test = Test::new();
        test.come("127.0.0.1", PLACES_PER_ADDRESS);
        test.places.remove(7);
        test.come("127.0.0.1", 1);
        assert!(test.lost().is_empty());
    }
}
