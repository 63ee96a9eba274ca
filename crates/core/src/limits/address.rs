use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use super::{AddressLimitSettings, Bucket};
use crate::lock::lock;

/// Most addresses that are remembered although they have nothing open. Beyond it the least recently used are forgotten,
/// which fills their buckets.
pub const ADDRESSES_MAX: usize = 64 * 1024;

const SHARDS: usize = 64;
const SHARD_MAX: usize = ADDRESSES_MAX / SHARDS;

/// The open connections and the buckets of each client address. An IPv6 client is counted by its /64, because that is
/// what one client gets.
///
/// Memory: about 100 bytes for each address that has something open, and for [`ADDRESSES_MAX`] others.
#[derive(Debug)]
pub struct Addresses {
    shards: Box<[Mutex<HashMap<IpAddr, Entry>>]>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Entry {
    connections: u32,
    handshakes: u32,
    connects: Bucket,
    messages: Bucket,
    used: Instant,
}

/// The decision on a connection that has just been accepted.
#[derive(Debug)]
pub enum Admission {
    /// The connection may send a request.
    Admitted { handshake: Option<Slot>, connection: Option<Slot> },
    /// The address has as many connections as it may. Every request is refused, and the connection keeps its place
    /// among the handshakes.
    Over { handshake: Option<Slot> },
    /// The address has as many handshakes in flight as it may.
    Refused,
}

/// A place of an address among its connections or handshakes. It is given back when the slot is dropped.
#[derive(Debug)]
pub struct Slot {
    addresses: Arc<Addresses>,
    key: IpAddr,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Connection,
    Handshake,
}

impl Default for Addresses {
    fn default() -> Self {
        Addresses { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Addresses {
    /// Counts a connection of `ip` that was accepted, unless `settings` forbid it.
    pub fn accept(self: &Arc<Self>, ip: IpAddr, settings: &AddressLimitSettings) -> Admission {
        if settings.connections == 0 && settings.handshakes_in_flight == 0 {
            return Admission::Admitted { handshake: None, connection: None };
        }
        let key = network_of(ip);
        let mut shard = self.shard(key);
        let entry = Self::entry(&mut shard, key, settings);
        if settings.handshakes_in_flight > 0 && entry.handshakes >= settings.handshakes_in_flight {
            return Admission::Refused;
        }
        entry.handshakes += 1;
        let handshake = Some(Slot { addresses: Arc::clone(self), key, kind: Kind::Handshake });
        if settings.connections > 0 && entry.connections >= settings.connections {
            return Admission::Over { handshake };
        }
        entry.connections += 1;
        Admission::Admitted {
            handshake,
            connection: Some(Slot { addresses: Arc::clone(self), key, kind: Kind::Connection }),
        }
    }

    /// Counts a connection that came through a proxy, from the client `ip`. Returns `None` if the client has as many as
    /// it may, and `Some(None)` if connections are not counted.
    pub fn hold(self: &Arc<Self>, ip: IpAddr, settings: &AddressLimitSettings) -> Option<Option<Slot>> {
        if settings.connections == 0 {
            return Some(None);
        }
        let key = network_of(ip);
        let mut shard = self.shard(key);
        let entry = Self::entry(&mut shard, key, settings);
        if entry.connections >= settings.connections {
            return None;
        }
        entry.connections += 1;
        Some(Some(Slot { addresses: Arc::clone(self), key, kind: Kind::Connection }))
    }

    /// Takes a token for the upgrade request of a client. Returns false if there is none.
    pub fn admit_connect(&self, ip: IpAddr, settings: &AddressLimitSettings) -> bool {
        let rate = settings.connects_per_second;
        rate == 0 || self.admit(ip, settings, |entry, now| entry.connects.admit(rate, rate, now))
    }

    /// Takes a token for a message of a client. Returns false if there is none.
    pub fn admit_message(&self, ip: IpAddr, settings: &AddressLimitSettings) -> bool {
        let rate = settings.messages_per_second;
        rate == 0 || self.admit(ip, settings, |entry, now| entry.messages.admit(rate, rate, now))
    }

    fn admit(
        &self,
        ip: IpAddr,
        settings: &AddressLimitSettings,
        take: impl FnOnce(&mut Entry, Instant) -> bool,
    ) -> bool {
        let key = network_of(ip);
        let mut shard = self.shard(key);
        let entry = Self::entry(&mut shard, key, settings);
        take(entry, entry.used)
    }

    /// Returns the number of addresses that are remembered.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Returns true if no address is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Entry>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        lock(&self.shards[hash])
    }

    /// Returns the entry of an address, and marks it as used now.
    fn entry<'a>(shard: &'a mut HashMap<IpAddr, Entry>, key: IpAddr, settings: &AddressLimitSettings) -> &'a mut Entry {
        let now = Instant::now();
        if shard.len() >= SHARD_MAX && !shard.contains_key(&key) {
            make_room(shard, settings, now);
        }
        let entry = shard.entry(key).or_insert_with(|| Entry {
            connections: 0,
            handshakes: 0,
            connects: Bucket::new(now),
            messages: Bucket::new(now),
            used: now,
        });
        entry.used = now;
        entry
    }
}

/// Forgets the idle addresses whose buckets are full, because that changes nothing. If that is not enough, it forgets
/// the half of the idle ones that was not used for longest. Entries with something open stay: the number of sockets
/// bounds them.
fn make_room(shard: &mut HashMap<IpAddr, Entry>, settings: &AddressLimitSettings, now: Instant) {
    let is_open = |entry: &Entry| entry.connections > 0 || entry.handshakes > 0;
    shard.retain(|_, entry| {
        is_open(entry)
            || !entry.connects.is_full(settings.connects_per_second, now)
            || !entry.messages.is_full(settings.messages_per_second, now)
    });
    let mut idle: Vec<Instant> = shard.values().filter(|entry| !is_open(entry)).map(|entry| entry.used).collect();
    if idle.len() < SHARD_MAX / 2 {
        return;
    }
    idle.sort_unstable();
    let oldest_kept = idle[idle.len() / 2];
    let mut room = idle.len() / 2;
    shard.retain(|_, entry| {
        // Many may have been used at the same instant.
        let goes = !is_open(entry) && entry.used <= oldest_kept && room > 0;
        room -= usize::from(goes);
        !goes
    });
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut shard = self.addresses.shard(self.key);
        let Some(entry) = shard.get_mut(&self.key) else { return };
        match self.kind {
            Kind::Connection => entry.connections = entry.connections.saturating_sub(1),
            Kind::Handshake => entry.handshakes = entry.handshakes.saturating_sub(1),
        }
    }
}

/// Returns the address by which `ip` is counted: itself, or the /64 network of an IPv6 address.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    const SETTINGS: AddressLimitSettings = AddressLimitSettings {
        connections: 2,
        handshakes_in_flight: 3,
        connects_per_second: 5,
        messages_per_second: 0,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn connections_and_handshakes_are_counted_until_they_are_closed() {
        let addresses = Arc::new(Addresses::default());
        let accept = |address: &str| addresses.accept(ip(address), &SETTINGS);
        let first = accept("203.0.113.1");
        let second = accept("203.0.113.1");
        assert!(matches!(first, Admission::Admitted { .. }) && matches!(second, Admission::Admitted { .. }));
        let third = accept("::ffff:203.0.113.1");
        assert!(matches!(third, Admission::Over { .. }));
        assert!(matches!(accept("203.0.113.1"), Admission::Refused));
        assert!(matches!(accept("203.0.113.2"), Admission::Admitted { .. }));
        drop(third);
        assert!(matches!(accept("203.0.113.1"), Admission::Over { .. }));
        drop(first);
        assert!(matches!(accept("203.0.113.1"), Admission::Admitted { .. }));
        assert!(matches!(accept("2001:db8::1"), Admission::Admitted { .. }));
    }

    #[tokio::test]
    async fn ipv6_clients_are_counted_by_their_network() {
        let addresses = Arc::new(Addresses::default());
        let held: Vec<_> = (0..3).map(|host| addresses.hold(ip(&format!("2001:db8::{host}")), &SETTINGS)).collect();
        assert!(held[0].is_some() && held[1].is_some() && held[2].is_none());
        assert!(addresses.hold(ip("2001:db8:0:1::"), &SETTINGS).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_own_bucket() {
        let addresses = Arc::new(Addresses::default());
        let take = |address: &str| (0..100).filter(|_| addresses.admit_connect(ip(address), &SETTINGS)).count();
        assert_eq!((take("203.0.113.1"), take("203.0.113.2")), (5, 5));
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!((take("203.0.113.1"), take("203.0.113.2")), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_what_is_open_is_not_forgotten() {
        let addresses = Arc::new(Addresses::default());
        let held = addresses.hold(ip("203.0.113.1"), &SETTINGS);
        for number in 0..4 * u32::try_from(ADDRESSES_MAX).expect("it fits") {
            addresses.admit_connect(IpAddr::V4(Ipv4Addr::from_bits(number)), &SETTINGS);
        }
        assert!(addresses.len() <= ADDRESSES_MAX, "{}", addresses.len());
        let second = addresses.hold(ip("203.0.113.1"), &SETTINGS);
        assert!(held.is_some() && second.is_some() && addresses.hold(ip("203.0.113.1"), &SETTINGS).is_none());
    }
}
