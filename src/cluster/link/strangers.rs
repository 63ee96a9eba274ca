//! Places for those who are connected to the peer port and have not proved yet that they are peers.
//!
//! Nobody who comes is refused for want of a place: somebody else gives up his, the one who has had it for longest
//! without a word. A peer says Hello at once and proves itself a moment later, so it is through before its turn comes,
//! however many others come and say nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use crate::limits::network_of;
use crate::lock::lock;

/// Places of all together.
pub(super) const PLACES: usize = 256;

/// Places of one address, or of one /64 of IPv6.
pub(super) const PLACES_PER_ADDRESS: usize = PLACES / 2;

#[derive(Debug, Default)]
pub(super) struct Strangers {
    taken: Mutex<Taken>,
}

/// Places that are taken, by their number, so in the order of arrival.
#[derive(Debug, Default)]
struct Taken {
    next: u64,
    places: BTreeMap<u64, Stranger>,
}

#[derive(Debug)]
struct Stranger {
    address: IpAddr,
    /// It has said a correct Hello.
    has_spoken: bool,
    lost: CancellationToken,
}

/// The place of one stranger, until it is dropped or lost.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Arc<Strangers>,
    number: u64,
    lost: CancellationToken,
}

impl Strangers {
    /// A place for one who comes from `ip`. Another may lose his.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Place {
        let (address, lost) = (network_of(ip), CancellationToken::new());
        let mut taken = self.lock();
        if let Some(loser) = loser(&taken.places, address).and_then(|number| taken.places.remove(&number)) {
            loser.lost.cancel();
        }
        let number = taken.next;
        taken.next += 1;
        taken.places.insert(number, Stranger { address, has_spoken: false, lost: lost.clone() });
        Place { strangers: Arc::clone(self), number, lost }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        lock(&self.taken)
    }
}

/// The one who gives up his place for somebody from `address`: of the same address if that has its share, of the address
/// that has most places if all are taken. Silent ones go first, and who came first.
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

impl Place {
    /// The stranger has said Hello.
    pub(super) fn has_spoken(&self) {
        if let Some(stranger) = self.strangers.lock().places.get_mut(&self.number) {
            stranger.has_spoken = true;
        }
    }

    /// Resolves when the place is somebody else's.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.strangers.lock().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Test {
        strangers: Arc<Strangers>,
        places: Vec<Place>,
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
        test.places.iter().for_each(Place::has_spoken);
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
